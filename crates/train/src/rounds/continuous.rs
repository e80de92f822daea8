//! Continuous: a rollout is answered as soon as its tokens are there, whatever others do.
//!
//! One thread polls the agents that are awake and makes their prompts; the caller's thread runs
//! the engine, one forward pass after the other, and takes in what was asked meanwhile. They
//! meet in the rollouts, each behind a lock of its own, and in a channel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use leyden_core::ModelError;
use leyden_lm::LmError;
use leyden_lm::generate::{Engine, Request, Ticket};
use rayon::prelude::*;

use crate::rounds::answer::{Answering, Waiting};
use crate::rounds::crew::{Crew, lock};
use crate::rounds::job::PromptCounts;
use crate::rounds::watch::Watch;

/// How often watchers are told where the rollouts stand.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// What the polling thread says to the engine's.
enum Said {
    Asked {
        rollout: usize,
        request: Box<Request>,
        waiting: Box<Waiting>,
    },
    /// The rollout has ended, or begins again: nobody waits for what it asked.
    Over {
        rollout: usize,
    },
}

/// Runs the crew to its end.
///
/// # Errors
/// The engine's.
pub(super) fn run(
    crew: &Crew<'_>,
    answering: &Answering<'_>,
    engine: &mut Engine,
    watch: &dyn Watch,
) -> Result<PromptCounts, LmError> {
    let (sender, receiver) = channel();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| poll(crew, answering, &sender, &stop));
        let served =
            Serving { crew, answering, open: HashMap::new() }.run(engine, &receiver, watch);
        stop.store(true, Ordering::Release);
        crew.bell.ring();
        let counts = polling.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
        served.map(|()| counts)
    })
}

/// Polls whoever is awake, until all have ended or it is told to stop.
fn poll(
    crew: &Crew<'_>,
    answering: &Answering<'_>,
    sender: &Sender<Said>,
    stop: &AtomicBool,
) -> PromptCounts {
    let mut counts = PromptCounts::default();
    while !stop.load(Ordering::Acquire) {
        let is_awake = |&index: &usize| crew.awake[index].load(Ordering::Acquire);
        let awake: Vec<usize> = (0..crew.awake.len()).filter(is_awake).collect();
        let counted: Vec<PromptCounts> =
            awake.par_iter().map(|&index| advance(crew, answering, sender, index)).collect();
        counted.into_iter().for_each(|count| counts.add(count));
        let (late, next) = crew.give_up_late();
        if awake.is_empty() && late.is_empty() {
            crew.bell.wait(next);
        }
        for rollout in late {
            let _ = sender.send(Said::Over { rollout });
        }
    }
    counts
}

/// Polls one rollout and passes on what it asks.
fn advance(
    crew: &Crew<'_>,
    answering: &Answering<'_>,
    sender: &Sender<Said>,
    index: usize,
) -> PromptCounts {
    let mut counts = PromptCounts::default();
    let mut rollout = lock(&crew.rollouts[index]);
    let attempt = rollout.attempt();
    rollout.advance(answering.options);
    if rollout.has_ended() || rollout.attempt() != attempt {
        let _ = sender.send(Said::Over { rollout: index });
    }
    for question in rollout.take_questions() {
        if let Some((request, waiting)) = answering.ask(&mut rollout, question, &mut counts) {
            let (request, waiting) = (Box::new(request), Box::new(waiting));
            let _ = sender.send(Said::Asked { rollout: index, request, waiting });
        }
    }
    counts
}

/// A request in the engine.
struct Open {
    rollout: usize,
    waiting: Waiting,
    since: Instant,
}

/// The engine's side.
struct Serving<'c, 'a> {
    crew: &'c Crew<'a>,
    answering: &'c Answering<'c>,
    open: HashMap<Ticket, Open>,
}

impl Serving<'_, '_> {
    fn run(
        mut self,
        engine: &mut Engine,
        receiver: &Receiver<Said>,
        watch: &dyn Watch,
    ) -> Result<(), LmError> {
        let mut shown = Instant::now();
        loop {
            while let Ok(said) = receiver.try_recv() {
                self.hear(engine, said, watch);
            }
            if self.open.is_empty() {
                if self.crew.is_over() {
                    return Ok(());
                }
                // The agents are at work. Whoever ends or asks says so.
                if let Ok(said) = receiver.recv_timeout(SHOWN_EVERY) {
                    self.hear(engine, said, watch);
                }
            } else {
                engine.step()?;
                for (ticket, completion) in engine.take_finished() {
                    let Some(Open { rollout, waiting, .. }) = self.open.remove(&ticket) else {
                        continue;
                    };
                    let mut rollout = lock(&self.crew.rollouts[rollout]);
                    self.answering.give(&mut rollout, waiting, completion);
                }
                self.cancel_late(engine);
            }
            if shown.elapsed() >= SHOWN_EVERY {
                shown = Instant::now();
                self.crew.show(watch, engine);
            }
        }
    }

    fn hear(&mut self, engine: &mut Engine, said: Said, watch: &dyn Watch) {
        match said {
            Said::Asked { rollout, request, waiting } => {
                let ticket = engine.submit(*request);
                let since = Instant::now();
                self.open.insert(ticket, Open { rollout, waiting: *waiting, since });
            }
            Said::Over { rollout } => {
                for (&ticket, _) in self.open.iter().filter(|(_, open)| open.rollout == rollout) {
                    engine.cancel(ticket);
                }
                self.open.retain(|_, open| open.rollout != rollout);
                watch.ended(self.crew.ended());
            }
        }
    }

    /// Ends calls that take too long; their agents are told so.
    fn cancel_late(&mut self, engine: &mut Engine) {
        let Some(limit) = self.answering.options.deadlines.call else { return };
        let late: Vec<Ticket> = self
            .open
            .iter()
            .filter(|(_, open)| open.since.elapsed() >= limit)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in late {
            engine.cancel(ticket);
            let Some(Open { rollout, waiting, .. }) = self.open.remove(&ticket) else { continue };
            let mut rollout = lock(&self.crew.rollouts[rollout]);
            let call = rollout.calls.len();
            rollout.answered();
            let _ = waiting.answer.send(Err(ModelError::Unavailable(format!(
                "call {call} of rollout {} took longer than {limit:?} (rollout.call_deadline)",
                rollout.job.id
            ))));
        }
    }
}
