//! All rollouts of a round, each behind a lock of its own.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use leyden_core::Agent;
use leyden_core::record::Flight;
use leyden_lm::generate::Engine;

use crate::rounds::job::Job;
use crate::rounds::live::Live;
use crate::rounds::options::RoundOptions;
use crate::rounds::wake::Bell;
use crate::rounds::watch::Watch;

/// All rollouts of a step.
pub(super) struct Crew<'a> {
    pub rollouts: Vec<Mutex<Live<'a>>>,
    /// Whether each of them is awake.
    pub awake: Vec<Arc<AtomicBool>>,
    pub bell: Arc<Bell>,
    options: &'a RoundOptions,
    started: Instant,
    /// Tokens that the engine had generated before.
    generated: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl<'a> Crew<'a> {
    pub fn new(
        jobs: Vec<Job<'a>>,
        agent: &'a dyn Agent,
        options: &'a RoundOptions,
        generated: u64,
    ) -> Self {
        let bell = Arc::new(Bell::default());
        let start = |job| Live::start(job, agent, options, &bell);
        let rollouts: Vec<Live<'a>> = jobs.into_iter().map(start).collect();
        let awake = rollouts.iter().map(|rollout| rollout.wake().flag()).collect();
        let rollouts = rollouts.into_iter().map(Mutex::new).collect();
        Self { rollouts, awake, bell, options, started: Instant::now(), generated }
    }

    pub fn ended(&self) -> usize {
        self.rollouts.iter().filter(|rollout| lock(rollout).has_ended()).count()
    }

    pub fn is_over(&self) -> bool {
        self.rollouts.iter().all(|rollout| lock(rollout).has_ended())
    }

    /// Gives up the rollouts that are late; returns them, and when the next one is.
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

    /// Tells a watcher where the rollouts stand.
    pub fn show(&self, watch: &dyn Watch, engine: &Engine) {
        if watch.wants_flight() {
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
