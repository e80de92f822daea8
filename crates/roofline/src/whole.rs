//! Composite benchmarks: prefill, decoding, a training step, a weight update of the engine.

use leyden_core::{Sampling, SeedTree};
use leyden_lm::LmError;
use leyden_lm::generate::{Engine, Limits};
use leyden_lm::model::{LlamaConfig, Parameters, initialise};
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::forest::{Pack, Row, pack};
use leyden_lm::policy::{Cotangent, Evaluated, Policy, PolicyOptions};
use tch::Kind;

use crate::{Kernel, Shape, Work};

/// A model of the shape with random weights, trainable or frozen.
fn policy(shape: &Shape, trained: bool) -> Result<Policy, LmError> {
    let tensors = initialise(&shape.config, SeedTree::new(1))?;
    let stored = if trained { Kind::Float } else { shape.kind };
    let parameters = Parameters::new(tensors, stored, shape.device, trained)?;
    let options = PolicyOptions { compute: shape.kind, ..PolicyOptions::default() };
    Ok(Policy::new(shape.config.clone(), parameters, options))
}

fn engine(shape: &Shape, policy: &Policy) -> Result<Engine, LmError> {
    let limits = Limits {
        context: shape.config.max_positions,
        cache_tokens: usize::MAX,
        prefill_tokens: shape.tokens,
    };
    Ok(Engine::new(shape.config.clone(), policy.inference_weights()?, shape.device, limits))
}

/// Parameters of the matrix products applied to every token; the embedding is a lookup.
fn multiplied(config: &LlamaConfig) -> f64 {
    let head = config.vocab_size * config.hidden_size;
    let tables = if config.tied { head } else { 2 * head };
    (config.parameters() - tables) as f64
}

fn head(config: &LlamaConfig) -> f64 {
    (config.vocab_size * config.hidden_size) as f64
}

/// Bytes of the weights that a forward pass reads.
fn weight_bytes(shape: &Shape) -> f64 {
    (multiplied(&shape.config) + head(&shape.config)) * shape.size()
}

/// `prompts` different prompts with `samples` requests each.
fn requests(
    shape: &Shape,
    samples: usize,
    max_tokens: usize,
    round: usize,
) -> Vec<leyden_lm::generate::Request> {
    let vocab = shape.config.vocab_size as f64;
    let prompt = |number: usize| -> Vec<u32> {
        let seed = SeedTree::new(round as u64).index(number as u64);
        (0..shape.prompt).map(|i| (seed.index(i as u64).uniform() * vocab) as u32).collect()
    };
    (0..shape.prompts)
        .flat_map(|number| {
            let prompt = prompt(number);
            (0..samples).map(move |sample| {
                let key = (number * samples + sample) as u64;
                let sampling = Sampling { max_tokens, ..Sampling::default() };
                let seed = SeedTree::new(3).index(key);
                leyden_lm::generate::Request::new(key, prompt.clone(), sampling, seed)
            })
        })
        .collect()
}

fn generating(
    shape: &Shape,
    samples: usize,
    max_tokens: usize,
    work: Work,
    description: String,
) -> Result<Kernel, LmError> {
    let mut engine = engine(shape, &policy(shape, false)?)?;
    let owned = shape.clone();
    Ok(Kernel {
        shape: description,
        work,
        run: Box::new(move |run| {
            engine.forget_all();
            engine.generate(requests(&owned, samples, max_tokens, run))?;
            Ok(())
        }),
    })
}

/// One token for each of a few prompts: prefill and one sampling step.
pub fn prefill(shape: &Shape) -> Result<Kernel, LmError> {
    let tokens = (shape.prompts * shape.prompt) as f64;
    let flops =
        2.0 * (multiplied(&shape.config) * tokens + head(&shape.config) * shape.prompts as f64);
    let description = format!("{} prompts of {} tokens", shape.prompts, shape.prompt);
    let work = Work { flops, bytes: weight_bytes(shape) };
    generating(shape, 1, 1, work, description)
}

/// Group rollouts as sampled in a training step.
pub fn generate(shape: &Shape) -> Result<Kernel, LmError> {
    let (rows, response) = (shape.rows() as f64, shape.response as f64);
    let tokens = (shape.prompts * shape.prompt) as f64 + rows * (response - 1.0);
    let flops = 2.0 * (multiplied(&shape.config) * tokens + head(&shape.config) * rows * response);
    let bytes = weight_bytes(shape) * response;
    let description = format!(
        "{} prompts of {} tokens × {} samples × {} tokens",
        shape.prompts, shape.prompt, shape.samples, shape.response
    );
    generating(shape, shape.samples, shape.response, Work { flops, bytes }, description)
}

/// Decoding steps of all rows: the cost of generation beyond prefill. Each run generates so few
/// tokens that the cache length is about constant.
pub fn decode_step(shape: &Shape) -> Result<Kernel, LmError> {
    const STEPS: usize = 16;
    let policy = policy(shape, false)?;
    let mut engine = engine(shape, &policy)?;
    let rows = shape.rows() as f64;
    let steps = STEPS as f64;
    let work = Work {
        flops: steps * 2.0 * (multiplied(&shape.config) + head(&shape.config)) * rows,
        bytes: steps * weight_bytes(shape),
    };
    let owned = shape.clone();
    let requested = move || requests(&owned, owned.samples, STEPS, 0);
    // The prompts stay cached, so continuing from them needs no prefill.
    engine.generate(requested())?;
    let description =
        format!("{STEPS} steps of {} rows after {} tokens", shape.rows(), shape.prompt);
    Ok(Kernel {
        shape: description,
        work,
        run: Box::new(move |_| {
            engine.generate(requested())?;
            Ok(())
        }),
    })
}

/// Responses to one prompt, up to the shape's number of tokens.
fn batch(shape: &Shape) -> Result<Vec<Pack>, LmError> {
    let prompt: Vec<u32> =
        (0..shape.prompt.min(shape.tokens / 2)).map(|i| (i % 90) as u32).collect();
    let rows = ((shape.tokens - prompt.len()) / shape.response).max(1);
    let row = |row: usize| {
        let own: Vec<u32> =
            (0..shape.response).map(|i| ((7 * i + 13 * row + 1) % 97) as u32).collect();
        Row::call(&prompt, &own)
    };
    let rows: Vec<Row> = (0..rows).map(row).collect();
    pack(&rows, &vec![0; rows.len()], shape.tokens).map_err(|e| LmError::Invalid(e.to_string()))
}

/// Forward pass, backward pass and optimiser step on one micro-batch.
pub fn training_step(shape: &Shape) -> Result<Kernel, LmError> {
    let policy = policy(shape, true)?;
    let mut optimizer = Optimizer::new(policy.trained(), OptimizerConfig::default())?;
    let packs = batch(shape)?;
    let tokens: usize = packs.iter().map(Pack::len).sum();
    let actions: usize = packs.iter().map(|pack| pack.actions.len()).sum();
    let numbers = shape.config.parameters() as f64;
    let work = Work {
        flops: 6.0
            * (multiplied(&shape.config) * tokens as f64 + head(&shape.config) * actions as f64),
        // Weights forward and backward, gradients, and the optimiser's seven arrays.
        bytes: 2.0 * weight_bytes(shape) + 4.0 * numbers + 28.0 * numbers,
    };
    let description = format!("{tokens} unique tokens, {actions} actions, with AdamW");
    Ok(Kernel {
        shape: description,
        work,
        run: Box::new(move |_| {
            policy.trained().zero_grad();
            for pack in &packs {
                policy.forward_backward(pack, 1.0, &mut |evaluated: &Evaluated| Cotangent {
                    logp: vec![-1.0 / actions as f64; evaluated.logp.len()],
                    entropy: None,
                })?;
            }
            optimizer.step(policy.trained(), 1.0)
        }),
    })
}

/// Converts the trained weights to the engine's type and sets them in the engine.
pub fn weight_push(shape: &Shape) -> Result<Kernel, LmError> {
    let policy = policy(shape, true)?;
    let mut engine = engine(shape, &policy)?;
    let numbers = shape.config.parameters() as f64;
    // Equal types share storage: nothing is copied.
    let bytes = if shape.kind == Kind::Float { 0.0 } else { numbers * (4.0 + shape.size()) };
    Ok(Kernel {
        shape: format!("{numbers} parameters"),
        work: Work { flops: 0.0, bytes },
        run: Box::new(move |_| {
            engine.set_weights(policy.inference_weights()?);
            Ok(())
        }),
    })
}
