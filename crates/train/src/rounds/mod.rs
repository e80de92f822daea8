//! Many agents, one engine: rollouts from their start to their reward.
//!
//! Every rollout is a future ([`live`]): it is polled until it ends or waits, for its model or
//! for anything else (HTTP, a process, a timer), and polled again when it is woken ([`wake`]).
//! What it asks its model becomes a request of the engine, and the engine's tokens become its
//! answer ([`answer`]); what the engine saw and wrote is recorded here, transparently to the
//! agent. Two schedules say who waits for whom ([`lockstep`], [`continuous`]).
//!
//! A rollout may also continue another one from one of its calls: the calls before it are then
//! answered as they were, without the engine. An agent that does the same when it is told the
//! same arrives in the same state; one that does not is recognised by its prompts.

mod answer;
mod continuous;
mod live;
mod lockstep;
mod options;
mod wake;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use leyden_core::record::Flight;
use leyden_core::{Agent, Call, Draft, Rollout, Scorer, SeedTree, Task};
use leyden_lm::{Engine, LmError};
use leyden_text::ChatFormat;
use rayon::prelude::*;

use answer::Answering;
use live::Live;
use wake::Bell;

pub use live::Spent;
pub use options::{Deadlines, OnFailure, RoundOptions, Schedule};

/// One rollout to be run.
pub struct Job<'a> {
    pub id: usize,
    pub group: usize,
    pub task: &'a Task,
    pub seed: SeedTree,
    /// Its first calls, which are answered as they were.
    pub played: &'a [Call],
}

/// What came of the jobs, in their order.
#[derive(Debug, Clone)]
pub struct Played {
    pub rollouts: Vec<Rollout>,
    pub prompts: PromptCounts,
    /// The answers that stood in the course of each rollout, of agents that say so.
    pub drafts: Vec<Vec<Draft>>,
    /// Where the time of each rollout went.
    pub spent: Vec<Spent>,
}

/// How the prompts of a step came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptCounts {
    /// First prompts of a conversation.
    pub fresh: usize,
    /// Prompts that extend an earlier call token for token.
    pub extended: usize,
    /// Prompts whose template rewrote what had been said.
    pub rewritten: usize,
}

impl PromptCounts {
    /// Adds those of other rollouts.
    pub fn add(&mut self, other: Self) {
        self.fresh += other.fresh;
        self.extended += other.extended;
        self.rewritten += other.rewritten;
    }
}

/// Whoever wants to know how far the rollouts are.
pub trait Watch {
    /// So many have ended.
    fn ended(&self, count: usize) {
        let _ = count;
    }

    /// Whether [`Watch::flight`] is to be called, which costs some copying.
    fn wants_flight(&self) -> bool {
        false
    }

    /// Where they stand, after every round or a few times a second.
    fn flight(&self, flight: Flight) {
        let _ = flight;
    }
}

/// Wants to know nothing.
impl Watch for () {}

/// Wants to know how many have ended.
pub struct Ended<F>(pub F);

impl<F: Fn(usize)> Watch for Ended<F> {
    fn ended(&self, count: usize) {
        (self.0)(count);
    }
}

/// All rollouts of a step.
struct Crew<'a> {
    rollouts: Vec<Mutex<Live<'a>>>,
    /// Whether each of them is awake.
    awake: Vec<Arc<AtomicBool>>,
    bell: Arc<Bell>,
    options: &'a RoundOptions,
    started: Instant,
    /// Tokens that the engine had generated before.
    generated: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl<'a> Crew<'a> {
    fn new(
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

    fn ended(&self) -> usize {
        self.rollouts.iter().filter(|rollout| lock(rollout).has_ended()).count()
    }

    fn is_over(&self) -> bool {
        self.rollouts.iter().all(|rollout| lock(rollout).has_ended())
    }

    /// Gives up the rollouts that are late; returns them, and when the next one is.
    fn give_up_late(&self) -> (Vec<usize>, Option<Instant>) {
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
    fn show(&self, watch: &dyn Watch, engine: &Engine) {
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

/// Runs all jobs to their end and scores them.
///
/// A rollout whose agent or model failed, or whose task cannot be scored, has no reward; the
/// others are not affected.
///
/// # Errors
/// Only where the engine itself fails (memory, device).
pub fn run_rollouts(
    jobs: Vec<Job<'_>>,
    agent: &dyn Agent,
    scorer: &dyn Scorer,
    format: &Arc<ChatFormat>,
    engine: &mut Engine,
    options: &RoundOptions,
    watch: &dyn Watch,
) -> Result<Played, LmError> {
    let crew = Crew::new(jobs, agent, options, engine.stats().generated_tokens);
    let answering = Answering::new(format, options);
    let prompts = match options.schedule {
        Schedule::Lockstep => lockstep::run(&crew, &answering, engine, watch)?,
        Schedule::Continuous => continuous::run(&crew, &answering, engine, watch)?,
    };
    crew.show(watch, engine);
    engine.forget_all();
    let finish = |rollout: Mutex<Live<'_>>| {
        rollout.into_inner().unwrap_or_else(|e| e.into_inner()).finish(scorer, options)
    };
    let (rollouts, rest): (Vec<Rollout>, Vec<(Vec<Draft>, Spent)>) =
        crew.rollouts.into_par_iter().map(finish).unzip();
    let (drafts, spent) = rest.into_iter().unzip();
    Ok(Played { rollouts, prompts, drafts, spent })
}

/// Signals by kind, over all rollouts.
pub fn signal_counts(rollouts: &[Rollout]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for signal in rollouts.iter().flat_map(|rollout| &rollout.signals) {
        let name = crate::store::signal_name(&signal.kind);
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}
