//! How fast the generation engine samples: prints one line of JSON.
//!
//! A number of prompts with several samples of each, no token ends a response, temperature 1.
//! The cache is emptied before each repetition, so prefill is part of the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use leyden_benchmarks::process::{median, peak_memory, timed};
use leyden_benchmarks::work::{self, Prompts};
use leyden_core::{Sampling, SeedTree};
use leyden_lm::{Completion, Engine, Limits, Request};
use leyden_lm::{LlamaConfig, LoadedModel, Parameters, Weights, load_weights, parse_kind};
use tch::{Device, Kind, no_grad_guard};

/// Measure the generation engine
#[derive(Parser)]
struct Arguments {
    /// Model folder or GGUF file
    #[arg(long)]
    model: PathBuf,
    /// JSON file of prompts
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Write the file of prompts (4 of 200 tokens) and end
    #[arg(long, requires = "prompts")]
    make: bool,
    /// Write the model as a Hugging Face folder of f32 weights, for peers, and end
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
    /// Number type of weights and cache: f32 or bf16
    #[arg(long, default_value = "bf16")]
    dtype: String,
    /// Samples of each prompt
    #[arg(long, default_value_t = 8)]
    samples: usize,
    /// New tokens of each sample
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Timed repetitions
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Untimed repetitions before them
    #[arg(long, default_value_t = 1)]
    warm_up: usize,
    /// Threads of libtorch
    #[arg(long, default_value_t = 2)]
    threads: i32,
    /// Continue each prompt greedily by this many tokens, untimed, and print them
    #[arg(long, default_value_t = 0)]
    greedy: usize,
}

fn main() -> Result<()> {
    leyden_lm::settle_process();
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.export {
        return export(&arguments.model, folder);
    }
    let path = arguments.prompts.as_deref().context("give a file of prompts: --prompts FILE")?;
    let (config, tensors) = load_weights(&arguments.model)?;
    if arguments.make {
        return work::write(path, &Prompts::make(4, 200, config.vocab_size, 1));
    }
    tch::set_num_threads(arguments.threads);
    let Prompts { prompts } = work::read(path)?;
    ensure!(!prompts.is_empty() && arguments.repetitions > 0, "there is nothing to measure");
    let kind = parse_kind(&arguments.dtype)?;
    let weights = {
        let _guard = no_grad_guard();
        let parameters = Parameters::new(tensors, kind, Device::Cpu, false)?;
        Weights::of(&parameters, &config, kind)?
    };
    let mut engine = engine(config, weights, &prompts, &arguments);
    let greedy = greedy(&mut engine, &prompts, arguments.greedy)?;
    measure(&mut engine, &prompts, &arguments, kind, greedy)
}

fn export(model: &Path, folder: &Path) -> Result<()> {
    Ok(LoadedModel::load(model)?.save(folder, Kind::Float)?)
}

fn engine(
    config: LlamaConfig,
    weights: Weights,
    prompts: &[Vec<u32>],
    arguments: &Arguments,
) -> Engine {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let context = longest + arguments.tokens.max(arguments.greedy);
    // Room for everything at once, whole blocks included.
    let cache_tokens = 2 * prompts.len() * (arguments.samples + 1) * (context + 64);
    let limits = Limits { context, cache_tokens, prefill_tokens: 2048 };
    Engine::new(config, weights, Device::Cpu, limits)
}

fn requests(
    prompts: &[Vec<u32>],
    samples: usize,
    sampling: &Sampling,
    seed: SeedTree,
) -> Vec<Request> {
    let stop_ids: Arc<[u32]> = Arc::new([]);
    (0..prompts.len() * samples)
        .map(|i| Request {
            key: i as u64,
            prompt: prompts[i / samples].clone(),
            sampling: sampling.clone(),
            seed: seed.index(i as u64),
            stop_ids: Arc::clone(&stop_ids),
            stop: None,
        })
        .collect()
}

fn generate(engine: &mut Engine, requests: &[Request]) -> Result<Vec<Completion>> {
    engine.forget_all();
    let completions = engine.generate(requests)?;
    Ok(completions.into_iter().collect::<Result<_, _>>()?)
}

fn greedy(engine: &mut Engine, prompts: &[Vec<u32>], tokens: usize) -> Result<Vec<Vec<u32>>> {
    let sampling = Sampling { temperature: 0.0, max_tokens: tokens, ..Sampling::default() };
    let requests = requests(prompts, 1, &sampling, SeedTree::new(0));
    Ok(generate(engine, &requests)?.into_iter().map(|c| c.ids).collect())
}

fn measure(
    engine: &mut Engine,
    prompts: &[Vec<u32>],
    arguments: &Arguments,
    kind: Kind,
    greedy: Vec<Vec<u32>>,
) -> Result<()> {
    let sampling = Sampling { max_tokens: arguments.tokens, ..Sampling::default() };
    let expected = prompts.len() * arguments.samples * arguments.tokens;
    let (mut seconds, mut logprob) = (Vec::new(), 0.0);
    for repetition in 0..arguments.warm_up + arguments.repetitions {
        let seed = SeedTree::new(1).index(repetition as u64);
        let requests = requests(prompts, arguments.samples, &sampling, seed);
        let (completions, took) = timed(|| generate(engine, &requests))?;
        let made: usize = completions.iter().map(|c| c.ids.len()).sum();
        ensure!(made == expected, "{made} tokens were generated, not {expected}");
        if repetition >= arguments.warm_up {
            seconds.push(took);
        }
        let all = completions.iter().flat_map(|c| &c.logprobs).copied().map(f64::from);
        logprob = all.sum::<f64>() / expected as f64;
    }
    let rates: Vec<f64> = seconds.iter().map(|s| expected as f64 / s).collect();
    let line = serde_json::json!({
        "tool": "leyden",
        "work": "generate",
        "model": arguments.model,
        "dtype": if kind == Kind::Float { "f32" } else { "bf16" },
        "threads": arguments.threads,
        "prompts": prompts.len(),
        "samples": arguments.samples,
        "new_tokens": arguments.tokens,
        "seconds": seconds,
        "tokens_per_second": rates,
        "median_tokens_per_second": median(&rates),
        "peak_memory_bytes": peak_memory()?,
        "mean_logprob": logprob,
        "greedy": greedy,
    });
    println!("{line}");
    Ok(())
}
