//! Measures a whole GRPO step and prints one line of JSON.
//!
//! A step generates samples, scores them, computes group-relative advantages, updates the policy
//! and loads the new weights into the engine. The reward is 1 if a response begins with an even
//! token id, which costs nothing, so the step measures the model alone. No stop tokens.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use leyden_benchmarks::play::play;
use leyden_benchmarks::process::{Compute, kind_name, median, peak_memory, timed};
use leyden_benchmarks::update::{LEARNING_RATE, Updater};
use leyden_benchmarks::work::{self, Call, Conversations, Group, Rollout, Rollouts};
use leyden_core::{Sampling, SeedTree};
use leyden_lm::formats::load_weights;
use leyden_lm::generate::{Completion, Engine};
use leyden_lm::model::Parameters;
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::Policy;
use leyden_lm::policy::PolicyOptions;
use tch::{Device, Kind};

/// Measure a whole GRPO step
#[derive(Parser)]
struct Arguments {
    /// JSON file of single-turn conversations, written by the binary `generate`
    #[arg(long)]
    prompts: PathBuf,
    /// Model folder or GGUF file
    #[arg(long)]
    model: PathBuf,
    #[command(flatten)]
    compute: Compute,
    /// Samples per prompt
    #[arg(long, default_value_t = 8)]
    samples: usize,
    /// Tokens per sample
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Maximum number of merged tokens in a micro-batch
    #[arg(long, default_value_t = 2048)]
    micro_batch_tokens: usize,
    /// Timed steps, after one untimed
    #[arg(long, default_value_t = 2)]
    repetitions: usize,
}

fn main() -> Result<()> {
    leyden_lm::process::reexec_with_env();
    let arguments = Arguments::parse();
    let kind = arguments.compute.settle()?;
    let given: Conversations = work::read(&arguments.prompts)?;
    ensure!(given.turns() == 1, "conversations have {} turns, expected 1", given.turns());
    ensure!(
        !given.conversations.is_empty() && arguments.samples > 1 && arguments.repetitions > 0,
        "a step needs prompts, at least two samples per prompt and at least one repetition"
    );
    let (config, tensors) = load_weights(&arguments.model)?;
    let options = PolicyOptions { compute: kind, ..PolicyOptions::default() };
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, true)?;
    let policy = Policy::new(config.clone(), parameters, options);
    let limits = given.limits(arguments.samples, arguments.tokens);
    let mut engine = Engine::new(config, policy.inference_weights()?, Device::Cpu, limits);
    let adamw = OptimizerConfig { lr: LEARNING_RATE, ..OptimizerConfig::default() };
    let mut optimizer = Optimizer::new(policy.trained(), adamw)?;
    let sampling = Sampling { max_tokens: arguments.tokens, ..Sampling::default() };
    let (mut generation, mut seconds) = (Vec::new(), Vec::new());
    for repetition in 0..=arguments.repetitions as u64 {
        let seed = SeedTree::new(repetition);
        let samples = arguments.samples;
        let (made, generating) = timed(|| play(&mut engine, &given, samples, &sampling, seed))?;
        let (own, updating) = timed(|| {
            let batch = rollouts(&given, samples, &made).batch()?;
            let budget = arguments.micro_batch_tokens;
            let mut updater = Updater::new(&policy, optimizer, &batch, budget);
            updater.update()?;
            engine.set_weights(policy.inference_weights()?);
            Ok(updater.optimizer)
        })?;
        optimizer = own;
        generation.push(generating);
        seconds.push(generating + updating);
    }
    let (generation, seconds) = (&generation[1..], &seconds[1..]);
    let rollouts = (given.conversations.len() * arguments.samples) as f64;
    let rates: Vec<f64> = seconds.iter().map(|s| rollouts / s).collect();
    let line = serde_json::json!({
        "tool": "leyden",
        "work": "grpo_step",
        "model": arguments.model,
        "dtype": kind_name(kind),
        "threads": arguments.compute.threads,
        "prompts": given.conversations.len(),
        "samples": arguments.samples,
        "new_tokens": arguments.tokens,
        "seconds": seconds,
        "seconds_of_generation": generation,
        "rollouts_per_second": rates,
        "median_rollouts_per_second": median(&rates),
        "peak_memory_bytes": peak_memory()?,
    });
    println!("{line}");
    Ok(())
}

/// The samples of each prompt as a group with its advantages.
fn rollouts(given: &Conversations, samples: usize, made: &[Completion]) -> Rollouts {
    let group = |(number, made): (usize, &[Completion])| {
        let even =
            made.iter().map(|completion| completion.ids.first().is_some_and(|id| id % 2 == 0));
        let rollout = |(completion, advantage): (&Completion, f64)| Rollout {
            advantage,
            calls: vec![Call {
                prompt_ids: given.conversations[number].prompt.clone(),
                response_ids: completion.ids.clone(),
            }],
        };
        let advantages = work::normalised(even);
        Group { rollouts: made.iter().zip(advantages).map(rollout).collect() }
    };
    Rollouts { groups: made.chunks(samples).enumerate().map(group).collect() }
}
