//! Continuous schedule: a rollout is answered as soon as its tokens are generated, independently of
//! others.
//!
//! One thread polls the awake agents and renders their prompts; the caller's thread runs the
//! engine, one forward pass after the other, and submits new requests in between. They share the
//! rollouts, each behind a lock, and a channel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use leyden_core::ModelError;
use leyden_lm::LmError;
use leyden_lm::generate::{Engine, Request, Ticket};
use rayon::prelude::*;

use crate::rounds::answer::{Answering, Waiting};
use crate::rounds::job::PromptCounts;
use crate::rounds::pool::{Pool, lock};
use crate::rounds::watch::Watch;

/// Interval of progress reports to watchers.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// A message from the polling thread to the engine's thread.
enum Message {
    Request {
        rollout: usize,
        request: Box<Request>,
        waiting: Box<Waiting>,
    },
    /// The rollout has ended or restarts: its open requests are obsolete.
    Over {
        rollout: usize,
    },
}

/// Runs all rollouts to completion.
///
/// # Errors
/// Errors of the engine.
pub(super) fn run(
    pool: &Pool<'_>,
    answering: &Answering<'_>,
    engine: &mut Engine,
    watch: &dyn Watch,
) -> Result<PromptCounts, LmError> {
    let (sender, receiver) = channel();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| poll(pool, answering, &sender, &stop));
        let served =
            Serving { pool, answering, open: HashMap::new() }.run(engine, &receiver, watch);
        stop.store(true, Ordering::Release);
        pool.notifier.notify();
        let counts = polling.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
        served.map(|()| counts)
    })
}

/// Polls the awake rollouts until `stop` is set.
fn poll(
    pool: &Pool<'_>,
    answering: &Answering<'_>,
    sender: &Sender<Message>,
    stop: &AtomicBool,
) -> PromptCounts {
    let mut counts = PromptCounts::default();
    while !stop.load(Ordering::Acquire) {
        let is_awake = |&index: &usize| pool.awake[index].load(Ordering::Acquire);
        let awake: Vec<usize> = (0..pool.awake.len()).filter(is_awake).collect();
        let counted: Vec<PromptCounts> =
            awake.par_iter().map(|&index| advance(pool, answering, sender, index)).collect();
        counted.into_iter().for_each(|count| counts.add(count));
        let (late, next) = pool.give_up_late();
        if awake.is_empty() && late.is_empty() {
            pool.notifier.wait(next);
        }
        for rollout in late {
            let _ = sender.send(Message::Over { rollout });
        }
    }
    counts
}

/// Polls one rollout and forwards its questions.
fn advance(
    pool: &Pool<'_>,
    answering: &Answering<'_>,
    sender: &Sender<Message>,
    index: usize,
) -> PromptCounts {
    let mut counts = PromptCounts::default();
    let mut rollout = lock(&pool.rollouts[index]);
    let attempt = rollout.attempt();
    rollout.advance(answering.options);
    if rollout.has_ended() || rollout.attempt() != attempt {
        let _ = sender.send(Message::Over { rollout: index });
    }
    for question in rollout.take_questions() {
        if let Some((request, waiting)) = answering.ask(&mut rollout, question, &mut counts) {
            let (request, waiting) = (Box::new(request), Box::new(waiting));
            let _ = sender.send(Message::Request { rollout: index, request, waiting });
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

/// State of the engine's thread.
struct Serving<'c, 'a> {
    pool: &'c Pool<'a>,
    answering: &'c Answering<'c>,
    open: HashMap<Ticket, Open>,
}

impl Serving<'_, '_> {
    fn run(
        mut self,
        engine: &mut Engine,
        receiver: &Receiver<Message>,
        watch: &dyn Watch,
    ) -> Result<(), LmError> {
        let mut reported = Instant::now();
        loop {
            while let Ok(message) = receiver.try_recv() {
                self.handle(engine, message, watch);
            }
            if self.open.is_empty() {
                if self.pool.is_over() {
                    return Ok(());
                }
                // All agents are running: wait for a request or an end.
                if let Ok(message) = receiver.recv_timeout(REPORT_INTERVAL) {
                    self.handle(engine, message, watch);
                }
            } else {
                engine.step()?;
                for (ticket, completion) in engine.take_finished() {
                    let Some(Open { rollout, waiting, .. }) = self.open.remove(&ticket) else {
                        continue;
                    };
                    let mut rollout = lock(&self.pool.rollouts[rollout]);
                    self.answering.deliver(&mut rollout, waiting, completion);
                }
                self.cancel_late(engine);
            }
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                self.pool.show(watch, engine);
            }
        }
    }

    fn handle(&mut self, engine: &mut Engine, message: Message, watch: &dyn Watch) {
        match message {
            Message::Request { rollout, request, waiting } => {
                let ticket = engine.submit(*request);
                let since = Instant::now();
                self.open.insert(ticket, Open { rollout, waiting: *waiting, since });
            }
            Message::Over { rollout } => {
                for (&ticket, _) in self.open.iter().filter(|(_, open)| open.rollout == rollout) {
                    engine.cancel(ticket);
                }
                self.open.retain(|_, open| open.rollout != rollout);
                watch.ended(self.pool.ended());
            }
        }
    }

    /// Cancels calls beyond their deadline; their agents get an error.
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
            let mut rollout = lock(&self.pool.rollouts[rollout]);
            let call = rollout.calls.len();
            rollout.answered();
            let _ = waiting.answer.send(Err(ModelError::Unavailable(format!(
                "call {call} of rollout {} took longer than {limit:?} (rollout.call_deadline)",
                rollout.job.id
            ))));
        }
    }
}
