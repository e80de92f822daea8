//! The rollouts of a round, each behind a lock.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use leyden_core::Agent;
use leyden_core::record::Flight;
use leyden_lm::generate::Engine;

use crate::rounds::job::Job;
use crate::rounds::live::Live;
use crate::rounds::options::RoundOptions;
use crate::rounds::wake::Notifier;
use crate::rounds::watch::Watch;

/// The rollouts of a round.
pub(super) struct Pool<'a> {
    pub rollouts: Vec<Mutex<Live<'a>>>,
    /// Whether each rollout is awake.
    pub awake: Vec<Arc<AtomicBool>>,
    pub notifier: Arc<Notifier>,
    options: &'a RoundOptions,
    started: Instant,
    /// Tokens that the engine had generated before the round.
    generated: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl<'a> Pool<'a> {
    pub fn new(
        jobs: Vec<Job<'a>>,
        agent: &'a dyn Agent,
        options: &'a RoundOptions,
        generated: u64,
    ) -> Self {
        let notifier = Arc::new(Notifier::default());
        let start = |job| Live::start(job, agent, options, &notifier);
        let rollouts: Vec<Live<'a>> = jobs.into_iter().map(start).collect();
        let awake = rollouts.iter().map(|rollout| rollout.wake().flag()).collect();
        let rollouts = rollouts.into_iter().map(Mutex::new).collect();
        Self { rollouts, awake, notifier, options, started: Instant::now(), generated }
    }

    pub fn ended(&self) -> usize {
        self.rollouts.iter().filter(|rollout| lock(rollout).has_ended()).count()
    }

    pub fn is_over(&self) -> bool {
        self.rollouts.iter().all(|rollout| lock(rollout).has_ended())
    }

    /// Aborts the rollouts past their deadline; returns them and the next deadline.
    pub fn give_up_late(&self) -> (Vec<usize>, Option<Instant>) {
        let deadlines = &self.options.deadlines;
        let now = Instant::now();
        let (mut late, mut next) = (Vec::new(), None::<Instant>);
        let step = deadlines
            .step
            .map(|limit| (self.started + limit, format!("the step took longer than {limit:?}")));
        for (index, rollout) in self.rollouts.iter().enumerate() {
            let mut rollout = lock(rollout);
            let own = rollout.due(deadlines);
            let step = step.clone().filter(|_| !rollout.has_ended());
            let last = step.as_ref().is_some_and(|(due, _)| *due <= now);
            let Some((due, why)) = step.into_iter().chain(own).min_by_key(|(due, _)| *due) else {
                continue;
            };
            if due <= now {
                rollout.give_up(&why, self.options, !last);
                late.push(index);
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        (late, next)
    }

    /// Reports the progress of the rollouts to a watcher.
    pub fn show(&self, watch: &dyn Watch, engine: &Engine) {
        if watch.wants_progress() {
            watch.flight(Flight {
                step: self.options.step,
                phase: self.options.phase.clone(),
                seconds: self.started.elapsed().as_secs_f64(),
                generated_tokens: engine.stats().generated_tokens - self.generated,
                rollouts: self.rollouts.iter().map(|rollout| lock(rollout).flight()).collect(),
            });
        }
    }
}
