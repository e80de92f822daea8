//! Measures the throughput of the generation engine and prints one line of JSON.
//!
//! Samples each conversation several times at temperature 1 without stop tokens. The KV cache is
//! cleared before each repetition, so the time includes prefill.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use leyden_benchmarks::play::{Play, Schedule, play};
use leyden_benchmarks::process::{Compute, kind_name, median, peak_memory, timed};
use leyden_benchmarks::work::{self, Conversation, Conversations};
use leyden_core::{Sampling, SeedTree};
use leyden_lm::formats::{LoadedModel, load_weights};
use leyden_lm::generate::Engine;
use leyden_lm::model::{Parameters, Weights};
use tch::{Device, Kind, no_grad_guard};

/// Measure the generation engine
#[derive(Parser)]
struct Arguments {
    /// Model folder or GGUF file
    #[arg(long)]
    model: PathBuf,
    /// JSON file of conversations
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Write the file of conversations and exit
    #[arg(long, requires = "prompts")]
    make: bool,
    /// With --make: number of conversations
    #[arg(long, default_value_t = 4)]
    count: usize,
    /// With --make: tokens of each prompt
    #[arg(long, default_value_t = 200)]
    length: usize,
    /// With --make: responses per conversation
    #[arg(long, default_value_t = 1)]
    turns: usize,
    /// With --make: tokens inserted after each response
    #[arg(long, default_value_t = 192)]
    between: usize,
    /// Write the model as a Hugging Face folder of f32 weights, for peers, and exit
    #[arg(long, value_name = "FOLDER")]
    export: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Samples per conversation
    #[arg(long, default_value_t = 8)]
    samples: usize,
    /// Tokens per response
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    /// Timed repetitions
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// How conversations are synchronised between turns
    #[arg(long, value_enum, default_value_t = Schedule::Lockstep)]
    schedule: Schedule,
    /// Mean duration of a tool call between two turns, in seconds
    #[arg(long, default_value_t = 0.0)]
    tool_seconds: f64,
    /// Untimed warm-up repetitions
    #[arg(long, default_value_t = 1)]
    warm_up: usize,
    /// Decode this many tokens greedily after each prompt, untimed, and print them
    #[arg(long, default_value_t = 0)]
    greedy: usize,
}

fn main() -> Result<()> {
    leyden_lm::process::reexec_with_env();
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.export {
        return export(&arguments.model, folder);
    }
    let path = arguments.prompts.as_deref().context("--prompts FILE is required")?;
    let (config, tensors) = load_weights(&arguments.model)?;
    if arguments.make {
        let Arguments { count, length, turns, between, .. } = arguments;
        ensure!(count * length * turns > 0, "--count, --length and --turns must be at least 1");
        let made = Conversations::make(count, length, (turns, between), config.vocab_size, 1);
        return work::write(path, &made);
    }
    let kind = arguments.compute.settle()?;
    let given: Conversations = work::read(path)?;
    ensure!(
        !given.conversations.is_empty() && arguments.repetitions > 0,
        "no conversations, or --repetitions is 0"
    );
    let weights = {
        let _guard = no_grad_guard();
        let parameters = Parameters::new(tensors, kind, Device::Cpu, false)?;
        Weights::of(&parameters, &config, kind)?
    };
    let limits = given.limits(arguments.samples, arguments.tokens.max(arguments.greedy));
    let mut engine = Engine::new(config, weights, Device::Cpu, limits);
    let greedy = greedy(&mut engine, &given, arguments.greedy)?;
    measure(&mut engine, &given, &arguments, kind, greedy)
}

fn export(model: &Path, folder: &Path) -> Result<()> {
    Ok(LoadedModel::load(model)?.save(folder, Kind::Float)?)
}

/// The first response of each conversation, decoded greedily.
fn greedy(engine: &mut Engine, given: &Conversations, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let sampling = Sampling { temperature: 0.0, max_tokens: tokens, ..Sampling::default() };
    let first = given.conversations.iter();
    let first = first.map(|c| Conversation { prompt: c.prompt.clone(), later: Vec::new() });
    let first = Conversations { conversations: first.collect() };
    let made = play(engine, &first, 1, &sampling, SeedTree::new(0))?;
    Ok(made.into_iter().map(|completion| completion.ids).collect())
}

fn measure(
    engine: &mut Engine,
    given: &Conversations,
    arguments: &Arguments,
    kind: Kind,
    greedy: Vec<Vec<u32>>,
) -> Result<()> {
    let sampling = Sampling { max_tokens: arguments.tokens, ..Sampling::default() };
    let responses: usize = given.conversations.iter().map(|c| 1 + c.later.len()).sum();
    let expected = responses * arguments.samples * arguments.tokens;
    let (mut seconds, mut logprob) = (Vec::new(), 0.0);
    for repetition in 0..arguments.warm_up + arguments.repetitions {
        let seed = SeedTree::new(1).index(repetition as u64);
        let play = Play {
            given,
            samples: arguments.samples,
            sampling: sampling.clone(),
            seed,
            schedule: arguments.schedule,
            tool: Duration::try_from_secs_f64(arguments.tool_seconds)
                .context("--tool-seconds: not a duration")?,
        };
        let (made, took) = timed(|| play.run(engine))?;
        let tokens: usize = made.iter().map(|completion| completion.ids.len()).sum();
        ensure!(tokens == expected, "{tokens} tokens were generated, not {expected}");
        if repetition >= arguments.warm_up {
            seconds.push(took);
        }
        let all = made.iter().flat_map(|completion| &completion.logprobs);
        logprob = all.copied().map(f64::from).sum::<f64>() / expected as f64;
    }
    let rates: Vec<f64> = seconds.iter().map(|s| expected as f64 / s).collect();
    let line = serde_json::json!({
        "tool": "leyden",
        "work": "generate",
        "model": arguments.model,
        "dtype": kind_name(kind),
        "threads": arguments.compute.threads,
        "prompts": given.conversations.len(),
        "turns": given.turns(),
        "samples": arguments.samples,
        "schedule": format!("{:?}", arguments.schedule).to_lowercase(),
        "tool_seconds": arguments.tool_seconds,
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
