//! Cost of continuous arrivals, with random weights. Run it alone on the machine.
//!
//! `cargo run --release -p leyden-lm --example continuous -- [smollm2|tiny] [f32|bf16] [shards]`
//! generates for the same requests by `generate` and by `submit` and `step`, alternately, and
//! prints tokens per second of both and the time to the first token.

use std::time::Instant;

use leyden_core::{Sampling, SeedTree};
use leyden_lm::LmError;
use leyden_lm::device::parse_kind;
use leyden_lm::generate::{Engine, Limits, Request};
use leyden_lm::model::{LlamaConfig, Parameters, Weights, initialise};
use tch::{Device, Kind};

const ROUNDS: u64 = 5;

/// Model shape and workload.
struct Preset {
    config: LlamaConfig,
    requests: usize,
    prompt_tokens: usize,
    new_tokens: usize,
}

fn preset(name: &str) -> Preset {
    let mut config = LlamaConfig::named("SmolLM2-135M").expect("the shape is built in");
    // No stop token ends a response early.
    config.eos.clear();
    if name == "smollm2" {
        return Preset { config, requests: 32, prompt_tokens: 200, new_tokens: 64 };
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
    Preset { config, requests: 32, prompt_tokens: 200, new_tokens: 64 }
}

fn requests(preset: &Preset, round: u64) -> Vec<Request> {
    let request = |key: usize| {
        let seed = SeedTree::new(round).index(key as u64);
        let token = |i: usize| {
            (seed.child("prompt").index(i as u64).uniform() * preset.config.vocab_size as f64)
                as u32
        };
        let prompt = (0..preset.prompt_tokens).map(token).collect();
        let sampling = Sampling { max_tokens: preset.new_tokens, ..Sampling::default() };
        Request::new(key as u64, prompt, sampling, seed.child("draw"))
    };
    (0..preset.requests).map(request).collect()
}

/// Seconds until the first and the last token, and the number of steps.
fn by_steps(engine: &mut Engine, requests: Vec<Request>) -> Result<(f64, f64, usize), LmError> {
    let start = Instant::now();
    for request in requests {
        engine.submit(request);
    }
    let (mut first, mut steps) = (None, 0);
    while !engine.is_idle() {
        if !engine.step()?.is_empty() {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        }
        steps += 1;
    }
    for (_, result) in engine.take_finished() {
        result?;
    }
    Ok((first.unwrap_or(0.0), start.elapsed().as_secs_f64(), steps))
}

fn main() -> Result<(), LmError> {
    leyden_lm::process::reexec_with_env();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("smollm2", String::as_str);
    let kind = arguments.get(1).map_or(Ok(Kind::BFloat16), |kind| parse_kind(kind))?;
    let shards = arguments.get(2).and_then(|count| count.parse().ok()).unwrap_or(1);
    let preset = preset(name);
    let tensors = initialise(&preset.config, SeedTree::new(1))?;
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, false)?;
    let weights = Weights::of(&parameters, &preset.config, kind)?;
    let limits = Limits { context: 4096, cache_tokens: 1 << 20, prefill_tokens: 1024 };
    let engine = Engine::new(preset.config.clone(), weights, Device::Cpu, limits);
    let mut engine = engine.split(shards)?;
    println!(
        "{name}, {kind:?}: {} requests, {} + {} tokens, {shards} shards, {} threads",
        preset.requests,
        preset.prompt_tokens,
        preset.new_tokens,
        tch::get_num_threads()
    );
    let output = (preset.requests * preset.new_tokens) as f64;
    let (mut whole, mut stepped) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        engine.forget_all();
        let start = Instant::now();
        for result in engine.generate(requests(&preset, round))? {
            result?;
        }
        let seconds = start.elapsed().as_secs_f64();
        engine.forget_all();
        let (first, all, steps) = by_steps(&mut engine, requests(&preset, round))?;
        println!(
            "generate {:.0} tokens/s; step {:.0} tokens/s, first token after {:.0} ms, {steps} steps",
            output / seconds,
            output / all,
            1e3 * first
        );
        whole.push(output / seconds);
        stepped.push(output / all);
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (whole, stepped) = (median(whole), median(stepped));
    println!("median: generate {whole:.0}, step {stepped:.0}, ratio {:.3}", stepped / whole);
    Ok(())
}
