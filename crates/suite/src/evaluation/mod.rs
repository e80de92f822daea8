//! Runs an agent over tasks with a fixed model.
//!
//! Tasks run in chunks: results are written to disk and shown on the progress bar before the next
//! chunk begins.

mod failure;
pub mod output;
pub mod summary;

use std::cell::RefCell;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;
use leyden_core::{Agent, Rollout, Sampling, Scorer, SeedTree, Task};
use leyden_lm::LmError;
use leyden_lm::formats::LoadedModel;
use leyden_lm::generate::{Engine, Limits};
use leyden_lm::model::Weights;
use leyden_stats::mean;
use leyden_text::ChatFormat;
use leyden_train::evaluation::jobs;
use leyden_train::progress::Progress;
use leyden_train::rounds::{Ended, RoundOptions, RoundOutput, run_rollouts};
use tch::{Device, Kind, Tensor};

use crate::benchmark::Benchmark;
pub use failure::Failure;
use output::Output;

/// Number of tasks whose rollouts run together.
const CHUNK: usize = 64;
/// Maximum number of prompt tokens in one forward pass, as in training by default.
const PREFILL_TOKENS: usize = 8192;

/// Decoding mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Sampled,
    Greedy,
}

impl Mode {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Greedy => "greedy",
        }
    }
}

impl EvaluationSettings {
    /// Rollouts per task; greedy ones are all the same.
    pub fn samples(&self, mode: Mode) -> usize {
        if mode == Mode::Greedy { 1 } else { self.samples }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Sampled, Self::Greedy].into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| format!("`{text}`: use sampled or greedy"))
    }
}

/// Settings of the model and its engine.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationSettings {
    pub device: Device,
    pub kind: Kind,
    /// Temperature of the sampled mode.
    pub temperature: f64,
    /// Rollouts per task in the sampled mode.
    pub samples: usize,
    /// Maximum number of tokens per response.
    pub max_tokens: usize,
    /// Context length in tokens; 0 is the model's own.
    pub context: usize,
    pub cache_tokens: usize,
    pub seed: u64,
}

/// Creates an engine for a loaded model.
///
/// # Errors
/// Missing tensors, too little memory.
pub fn engine(model: &LoadedModel, settings: &EvaluationSettings) -> Result<Engine> {
    let _guard = tch::no_grad_guard();
    let tensors: HashMap<&str, Tensor> = model
        .tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.to_device(settings.device)))
        .collect();
    let weights = Weights::from_lookup(&model.config, settings.kind, |name| {
        tensors
            .get(name)
            .ok_or_else(|| LmError::Tensor { name: name.to_owned(), what: "is missing".to_owned() })
    })?;
    let context = model.config.context(settings.context);
    let cache_tokens = settings.cache_tokens;
    let limits = Limits { context, cache_tokens, prefill_tokens: PREFILL_TOKENS };
    Ok(Engine::new(model.config.clone(), weights, settings.device, limits))
}

/// Runs the rollouts of all tasks, in order. Each chunk is written to `output` when it is done.
///
/// # Errors
/// Errors of the engine and of the file system.
pub fn evaluate(
    (engine, format): (&mut Engine, &Arc<ChatFormat>),
    benchmark: &dyn Benchmark,
    (agent, scorer): (&dyn Agent, &dyn Scorer),
    tasks: &[Task],
    mode: Mode,
    settings: &EvaluationSettings,
    output: &mut Output,
) -> Result<Vec<Rollout>> {
    let sampling = Sampling {
        temperature: if mode == Mode::Greedy { 0.0 } else { settings.temperature },
        max_tokens: settings.max_tokens,
        ..Sampling::default()
    };
    let options = RoundOptions { phase: mode.name().to_owned(), ..RoundOptions::new(sampling, 0) };
    // Same seed path as evaluations of a run, so that equal seeds give equal samples.
    let seed = SeedTree::new(settings.seed).child("eval");
    let samples = settings.samples(mode);
    let count = (tasks.len() * samples) as u64;
    let progress = RefCell::new(Progress::new(mode.name(), count, 0));
    let mut all: Vec<Rollout> = Vec::with_capacity(tasks.len() * samples);
    for (number, chunk) in tasks.chunks(CHUNK).enumerate() {
        let first = number * CHUNK;
        let jobs = jobs(tasks, first..first + chunk.len(), samples, seed).collect();
        let so_far: Vec<f64> = all.iter().filter_map(|rollout| rollout.outcome.reward()).collect();
        let show = Ended(|done: usize| {
            let message =
                || mean(&so_far).map_or(String::new(), |mean| format!("reward {mean:.3}"));
            progress.borrow_mut().update((first * samples + done) as u64, message);
        });
        let RoundOutput { rollouts, .. } =
            run_rollouts(jobs, agent, scorer, format, engine, &options, &show)?;
        output.rollouts(benchmark, mode, tasks, &rollouts, format)?;
        all.extend(rollouts);
    }
    progress.borrow().end();
    Ok(all)
}
