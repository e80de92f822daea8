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
mod crew;
mod job;
mod live;
mod lockstep;
pub(crate) mod options;
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
use crew::Crew;
use live::Live;

pub use job::{Job, PromptCounts, RoundOutput, Spent};
pub use options::{Deadlines, OnFailure, RoundOptions, Schedule};
pub use watch::{Ended, Watch};

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
) -> Result<RoundOutput, LmError> {
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
