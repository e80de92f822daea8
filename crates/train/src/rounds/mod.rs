//! Runs many agents on one engine: rollouts from start to reward.
//!
//! Every rollout is a future ([`live`]): it is polled until it ends or waits, for its model or for
//! anything else (HTTP, a process, a timer), and polled again when it is woken ([`wake`]). Its
//! model request becomes an engine request, and the engine's tokens become the reply ([`answer`]);
//! prompts and responses are recorded here, transparently to the agent. Two schedules determine
//! which rollouts wait for each other ([`lockstep`], [`continuous`]).
//!
//! A rollout may also continue another one from one of its calls: the calls before it are then
//! replayed without the engine. A deterministic agent arrives in the same state; a
//! non-deterministic one is detected by its prompts.

mod answer;
mod continuous;
mod job;
mod live;
mod lockstep;
pub(crate) mod options;
mod pool;
mod wake;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use leyden_core::{Agent, Draft, Rollout, Scorer};
use leyden_lm::LmError;
use leyden_lm::generate::Engine;
use leyden_text::ChatFormat;
use rayon::prelude::*;

use crate::store::signal_name;
use answer::Answering;
use live::Live;
use pool::Pool;

pub use job::{Job, PromptCounts, RoundOutput, Spent};
pub use live::CONTEXT_OVERFLOW;
pub use options::{Deadlines, OnFailure, RoundOptions, Schedule};
pub use watch::{Ended, Watch};

/// Runs all jobs to completion and scores them.
///
/// A rollout whose agent or model failed, or whose task cannot be scored, has no reward; the
/// others are not affected.
///
/// # Errors
/// Only if the engine itself fails (memory, device).
pub fn run_rollouts(
    jobs: Vec<Job<'_>>,
    agent: &dyn Agent,
    scorer: &dyn Scorer,
    format: &Arc<ChatFormat>,
    engine: &mut Engine,
    options: &RoundOptions,
    watch: &dyn Watch,
) -> Result<RoundOutput, LmError> {
    let pool = Pool::new(jobs, agent, options, engine.stats().generated_tokens);
    let answering = Answering::new(format, options);
    let prompts = match options.schedule {
        Schedule::Lockstep => lockstep::run(&pool, &answering, engine, watch)?,
        Schedule::Continuous => continuous::run(&pool, &answering, engine, watch)?,
    };
    pool.show(watch, engine);
    engine.forget_all();
    let finish = |rollout: Mutex<Live<'_>>| {
        rollout.into_inner().unwrap_or_else(|e| e.into_inner()).finish(scorer, options)
    };
    let (rollouts, rest): (Vec<Rollout>, Vec<(Vec<Draft>, Spent)>) =
        pool.rollouts.into_par_iter().map(finish).unzip();
    let (drafts, spent) = rest.into_iter().unzip();
    Ok(RoundOutput { rollouts, prompts, drafts, spent })
}

/// Signals by kind, over all rollouts.
pub fn signal_counts(rollouts: &[Rollout]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for signal in rollouts.iter().flat_map(|rollout| &rollout.signals) {
        let name = signal_name(&signal.kind);
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}
