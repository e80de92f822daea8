//! Lockstep: all rollouts have asked or ended before any is answered.

use std::sync::Mutex;

use leyden_lm::LmError;
use leyden_lm::generate::Engine;
use rayon::prelude::*;

use crate::rounds::answer::Answering;
use crate::rounds::crew::{Crew, lock};
use crate::rounds::job::PromptCounts;
use crate::rounds::live::Live;
use crate::rounds::watch::Watch;

/// Runs the crew to its end in rounds: the questions, ordered by rollout and not by arrival,
/// are generated as one batch.
///
/// # Errors
/// The engine's.
pub(super) fn run(
    crew: &Crew<'_>,
    answering: &Answering<'_>,
    engine: &mut Engine,
    watch: &dyn Watch,
) -> Result<PromptCounts, LmError> {
    let mut counts = PromptCounts::default();
    loop {
        gather(crew, answering);
        watch.ended(crew.ended());
        let round: Vec<Mutex<(PromptCounts, Vec<_>)>> =
            crew.rollouts.iter().map(|_| Mutex::default()).collect();
        crew.rollouts.par_iter().zip(&round).for_each(|(rollout, asked)| {
            let (mut rollout, mut asked) = (lock(rollout), lock(asked));
            for question in rollout.take_questions() {
                let (counts, requests) = &mut *asked;
                requests.extend(answering.ask(&mut rollout, question, counts));
            }
        });
        let (mut requests, mut waiting) = (Vec::new(), Vec::new());
        for (index, asked) in round.into_iter().enumerate() {
            let (count, asked) = asked.into_inner().unwrap_or_else(|e| e.into_inner());
            counts.add(count);
            for (request, question) in asked {
                requests.push(request);
                waiting.push((index, question));
            }
        }
        if requests.is_empty() {
            // Answers that were known at once may have woken some.
            if crew.is_over() {
                return Ok(counts);
            }
            continue;
        }
        // Shown as it will stand for most of the round.
        crew.show(watch, engine);
        let completions = engine.generate(requests)?;
        for ((index, question), completion) in waiting.into_iter().zip(completions) {
            answering.give(&mut lock(&crew.rollouts[index]), question, completion);
        }
    }
}

/// Polls the rollouts until each has ended or asked; gives up those that are late.
fn gather(crew: &Crew<'_>, answering: &Answering<'_>) {
    let options = answering.options;
    loop {
        crew.rollouts.par_iter().for_each(|rollout| lock(rollout).advance(options));
        let waits = |rollout: &Mutex<Live<'_>>| {
            let rollout = lock(rollout);
            !rollout.has_ended() && !rollout.has_asked()
        };
        if !crew.rollouts.iter().any(waits) {
            return;
        }
        let (late, next) = crew.give_up_late();
        if late.is_empty() {
            crew.bell.wait(next);
        }
    }
}
