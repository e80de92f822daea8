//! Lockstep schedule: all rollouts have asked or ended before any is answered.

use std::sync::Mutex;

use leyden_lm::LmError;
use leyden_lm::generate::Engine;
use rayon::prelude::*;

use crate::rounds::answer::Answering;
use crate::rounds::job::PromptCounts;
use crate::rounds::live::Live;
use crate::rounds::pool::{Pool, lock};
use crate::rounds::watch::Watch;

/// Runs all rollouts to completion in rounds: the questions, ordered by rollout and not by arrival,
/// are generated as one batch.
///
/// # Errors
/// Errors of the engine.
pub(super) fn run(
    pool: &Pool<'_>,
    answering: &Answering<'_>,
    engine: &mut Engine,
    watch: &dyn Watch,
) -> Result<PromptCounts, LmError> {
    let mut counts = PromptCounts::default();
    loop {
        gather(pool, answering);
        watch.ended(pool.ended());
        let round: Vec<Mutex<(PromptCounts, Vec<_>)>> =
            pool.rollouts.iter().map(|_| Mutex::default()).collect();
        pool.rollouts.par_iter().zip(&round).for_each(|(rollout, asked)| {
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
            // Immediate answers may have woken some rollouts.
            if pool.is_over() {
                return Ok(counts);
            }
            continue;
        }
        // Reported here, since this state lasts for most of the round.
        pool.show(watch, engine);
        let completions = engine.generate(requests)?;
        for ((index, question), completion) in waiting.into_iter().zip(completions) {
            answering.deliver(&mut lock(&pool.rollouts[index]), question, completion);
        }
    }
}

/// Polls the rollouts until each has ended or asked; aborts those past their deadline.
fn gather(pool: &Pool<'_>, answering: &Answering<'_>) {
    let options = answering.options;
    loop {
        pool.rollouts.par_iter().for_each(|rollout| lock(rollout).advance(options));
        let waits = |rollout: &Mutex<Live<'_>>| {
            let rollout = lock(rollout);
            !rollout.has_ended() && !rollout.has_asked()
        };
        if !pool.rollouts.iter().any(waits) {
            return;
        }
        let (late, next) = pool.give_up_late();
        if late.is_empty() {
            pool.notifier.wait(next);
        }
    }
}
