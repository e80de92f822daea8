//! Measures policy updates on rollouts and prints one line of JSON.
//!
//! Forward pass, backward pass and an AdamW step on a file of rollouts, with merged prefixes.
//! Repetitions are updates on the same batch, like PPO epochs; each packs the batch again.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use leyden_benchmarks::process::{Compute, kind_name, median, peak_memory, timed};
use leyden_benchmarks::update::{LEARNING_RATE, Update, Updater};
use leyden_benchmarks::work::{self, Rollouts};
use leyden_lm::formats::load_weights;
use leyden_lm::model::Parameters;
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::{Policy, PolicyOptions};
use tch::{Device, Kind};

/// Measure a training step
#[derive(Parser)]
struct Arguments {
    /// JSON file of rollouts
    #[arg(long)]
    rollouts: PathBuf,
    /// Write the file of rollouts and exit
    #[arg(long)]
    make: bool,
    /// With --make: number of tasks
    #[arg(long, default_value_t = 8)]
    tasks: usize,
    /// With --make: rollouts per task
    #[arg(long, default_value_t = 8)]
    samples: usize,
    /// With --make: instead of calculator rollouts, 8 rows of this length without shared prefixes
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["tasks", "samples"])]
    unrelated: Option<usize>,
    /// With --make: size of the vocabulary
    #[arg(long, default_value_t = 49_152)]
    vocabulary: usize,
    /// Model folder or GGUF file
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Maximum number of merged tokens in a micro-batch
    #[arg(long, default_value_t = 2048)]
    micro_batch_tokens: usize,
    /// Activation checkpointing: keep only the layers' inputs and recompute the rest
    #[arg(long)]
    checkpointing: bool,
    /// Timed updates
    #[arg(long, default_value_t = 2)]
    repetitions: usize,
}

fn main() -> Result<()> {
    leyden_lm::process::reexec_with_env();
    let arguments = Arguments::parse();
    if arguments.make {
        let Arguments { tasks, samples, vocabulary, unrelated, .. } = arguments;
        ensure!(vocabulary > 1000, "a vocabulary of {vocabulary} is too small to draw from");
        let made = match unrelated {
            Some(length) => {
                ensure!(length > 1, "--unrelated {length}: must be at least 2");
                Rollouts::unrelated(8, length, vocabulary, 1)
            }
            None => Rollouts::make(tasks, samples, vocabulary, 1),
        };
        return work::write(&arguments.rollouts, &made);
    }
    let kind = arguments.compute.settle()?;
    let rollouts: Rollouts = work::read(&arguments.rollouts)?;
    let batch = rollouts.batch()?;
    let model = arguments.model.as_deref().context("--model PATH is required")?;
    let (config, tensors) = load_weights(model)?;
    let options =
        PolicyOptions { compute: kind, checkpointing: arguments.checkpointing, head_chunk: None };
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true)?;
    let policy = Policy::new(config, parameters, options);
    let optimizer = OptimizerConfig { lr: LEARNING_RATE, ..OptimizerConfig::default() };
    let optimizer = Optimizer::new(policy.trained(), optimizer)?;
    let mut updater = Updater::new(&policy, optimizer, &batch, arguments.micro_batch_tokens);
    updater.warm_up()?;
    let (mut updates, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..arguments.repetitions.max(1) {
        let (update, took) = timed(|| updater.update())?;
        updates.push(update);
        seconds.push(took);
    }
    let tokens = batch.row_tokens() as f64;
    let token_rates: Vec<f64> = seconds.iter().map(|s| tokens / s).collect();
    let rates: Vec<f64> = seconds.iter().map(|s| rollouts.len() as f64 / s).collect();
    let each = |value: fn(&Update) -> f64| updates.iter().map(value).collect::<Vec<_>>();
    let line = serde_json::json!({
        "tool": "leyden",
        "work": "train_step",
        "model": model,
        "dtype": kind_name(kind),
        "threads": arguments.compute.threads,
        "rollouts": rollouts.len(),
        "calls": batch.rows.len(),
        "row_tokens": batch.row_tokens(),
        "computed_tokens": updates[0].unique_tokens,
        "action_tokens": batch.shape.tokens(),
        "seconds": seconds,
        "rollouts_per_second": rates,
        "median_rollouts_per_second": median(&rates),
        "median_tokens_per_second": median(&token_rates),
        "peak_memory_bytes": peak_memory()?,
        "loss": each(|u| u.loss),
        "logp_mean": each(|u| u.logp_mean),
        "grad_norm": each(|u| u.grad_norm),
    });
    println!("{line}");
    Ok(())
}
