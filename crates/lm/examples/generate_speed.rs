//! Speed of the generation engine with random weights. Run it alone on the machine.
//!
//! `cargo run --release -p leyden-lm --example generate_speed -- [smollm2|tiny] [f32|bf16]`
//! prints tokens per second of prefill and of a whole call, and the time per decoding step.

use std::time::Instant;

use leyden_core::{Sampling, SeedTree};
use leyden_lm::LmError;
use leyden_lm::device::parse_kind;
use leyden_lm::generate::{Engine, Limits, Request};
use leyden_lm::model::{LlamaConfig, Parameters, Weights, initialise};
use tch::{Device, Kind};

/// Model shape and workload.
struct Preset {
    config: LlamaConfig,
    prompts: usize,
    prompt_tokens: usize,
    samples: usize,
    new_tokens: usize,
}

fn preset(name: &str) -> Preset {
    let mut config = LlamaConfig::named("SmolLM2-135M").expect("the shape is built in");
    // No stop token ends a response early.
    config.eos.clear();
    if name == "smollm2" {
        return Preset { config, prompts: 4, prompt_tokens: 200, samples: 8, new_tokens: 64 };
    }
    let config = LlamaConfig {
        vocab_size: 1024,
        hidden_size: 96,
        intermediate_size: 288,
        layers: 4,
        heads: 6,
        kv_heads: 6,
        head_dim: 16,
        ..config
    };
    Preset { config, prompts: 16, prompt_tokens: 120, samples: 8, new_tokens: 48 }
}

fn requests(preset: &Preset, round: u64, new_tokens: usize) -> Vec<Request> {
    let token = |seed: SeedTree| (seed.uniform() * preset.config.vocab_size as f64) as u32;
    let mut requests = Vec::new();
    for p in 0..preset.prompts {
        let seed = SeedTree::new(round).index(p as u64);
        let prompt: Vec<u32> =
            (0..preset.prompt_tokens).map(|i| token(seed.index(i as u64))).collect();
        for _ in 0..preset.samples {
            let key = requests.len() as u64;
            let sampling = Sampling { max_tokens: new_tokens, ..Sampling::default() };
            let seed = SeedTree::new(round).child("draw").index(key);
            requests.push(Request::new(key, prompt.clone(), sampling, seed));
        }
    }
    requests
}

fn main() -> Result<(), LmError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("smollm2", String::as_str);
    let kind = arguments.get(1).map_or(Ok(Kind::BFloat16), |kind| parse_kind(kind))?;
    let preset = preset(name);
    let tensors = initialise(&preset.config, SeedTree::new(1))?;
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, false)?;
    let weights = Weights::of(&parameters, &preset.config, kind)?;
    let limits = Limits { context: 4096, cache_tokens: 1 << 20, prefill_tokens: 1024 };
    let mut engine = Engine::new(preset.config.clone(), weights, Device::Cpu, limits);
    println!(
        "{name}, {kind:?}: {} prompts of {} tokens x {} samples, {} threads",
        preset.prompts,
        preset.prompt_tokens,
        preset.samples,
        tch::get_num_threads()
    );
    for round in 0..4 {
        let mut time = |new_tokens| -> Result<f64, LmError> {
            engine.forget_all();
            let requests = requests(&preset, round, new_tokens);
            let start = Instant::now();
            for result in engine.generate(requests)? {
                result?;
            }
            Ok(start.elapsed().as_secs_f64())
        };
        let first = time(1)?;
        let all = time(preset.new_tokens)?;
        let output = preset.prompts * preset.samples * preset.new_tokens;
        println!(
            "first token after {:.1} ms; {:.2} ms a step; {:.0} output tokens/s",
            1e3 * first,
            1e3 * (all - first) / (preset.new_tokens - 1) as f64,
            output as f64 / all
        );
    }
    Ok(())
}
