//! Single kernels at the shapes of a model.
//!
//! Inputs are sampled once and rotated, so that a kernel's inputs come from memory rather than
//! cache, as between the layers of a model that does not fit into a cache. Bytes are counted as if
//! each input were read once and each output written once.

use leyden_core::SeedTree;
use leyden_lm::LmError;
use leyden_lm::generate::single::{DecodeAttention, draw};
use leyden_lm::model::{self, Attention, Parameters, Rotary, rotate};
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::ForestAttention;
use leyden_lm::policy::forest::{Pack, Row, pack};
use leyden_lm::policy::head::{Head, HeadCotangent};
use leyden_rl::Rows;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::credit::Trajectory;
use leyden_rl::loss::LossInput;
use leyden_rl::objective::ObjectiveInput;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::{Kernel, Shape, Work};

/// Bytes of rotated inputs: larger than current processor caches.
const ROTATED: f64 = 128e6;

/// Maximum number of copies of an input.
const COPIES: usize = 64;

/// Normally distributed numbers of the shape's type.
fn drawn(shape: &Shape, size: &[i64]) -> Result<Tensor, LmError> {
    Ok(Tensor::f_randn(size, (Kind::Float, shape.device))?.f_to_kind(shape.kind)?)
}

/// Copies of an input of `bytes` bytes.
fn rotated<T>(bytes: f64, mut make: impl FnMut() -> Result<T, LmError>) -> Result<Vec<T>, LmError> {
    let copies = ((ROTATED / bytes.max(1.0)).ceil() as usize).clamp(1, COPIES);
    (0..copies).map(|_| make()).collect()
}

fn integers(shape: &Shape, values: impl Iterator<Item = i64>) -> Result<Tensor, LmError> {
    let values: Vec<i64> = values.collect();
    Ok(Tensor::f_from_slice(&values)?.f_to_device(shape.device)?)
}

fn kernel(
    shape: String,
    work: Work,
    run: impl FnMut(usize) -> Result<(), LmError> + 'static,
) -> Kernel {
    Kernel { shape, work, run: Box::new(run) }
}

pub fn embedding(shape: &Shape) -> Result<Kernel, LmError> {
    let (n, width, vocab) = (shape.tokens, shape.config.hidden_size, shape.config.vocab_size);
    let table = drawn(shape, &[vocab as i64, width as i64])?;
    let bytes = (n * width) as f64 * 2.0 * shape.size();
    let ids = rotated(bytes, || {
        let seed = SeedTree::new(1);
        integers(shape, (0..n).map(|i| (seed.index(i as u64).uniform() * vocab as f64) as i64))
    })?;
    let work = Work { flops: 0.0, bytes };
    Ok(kernel(format!("[{n}] of [{vocab}, {width}]"), work, move |run| {
        let _guard = no_grad_guard();
        let _ = Tensor::f_embedding(&table, &ids[run % ids.len()], -1, false, false)?;
        Ok(())
    }))
}

pub fn rms_norm(shape: &Shape) -> Result<Kernel, LmError> {
    let (n, width) = (shape.tokens, shape.config.hidden_size);
    let bytes = (n * width) as f64 * 2.0 * shape.size();
    let inputs = rotated(bytes, || drawn(shape, &[n as i64, width as i64]))?;
    let (weight, eps) = (drawn(shape, &[width as i64])?, shape.config.norm_eps);
    let work = Work { flops: 4.0 * (n * width) as f64, bytes };
    Ok(kernel(format!("[{n}, {width}]"), work, move |run| {
        let _guard = no_grad_guard();
        let _ = leyden_lm::model::rms_norm(&inputs[run % inputs.len()], &weight, eps)?;
        Ok(())
    }))
}

fn projection(shape: &Shape, input: usize, output: usize) -> Result<Kernel, LmError> {
    let n = shape.tokens;
    let bytes = ((n * input + n * output + input * output) as f64) * shape.size();
    let inputs = rotated(bytes, || {
        Ok((
            drawn(shape, &[n as i64, input as i64])?,
            drawn(shape, &[output as i64, input as i64])?,
        ))
    })?;
    let work = Work { flops: 2.0 * (n * input * output) as f64, bytes };
    Ok(kernel(format!("[{n}, {input}] by [{output}, {input}]"), work, move |run| {
        let _guard = no_grad_guard();
        let (x, weight) = &inputs[run % inputs.len()];
        let _ = x.f_linear(weight, None::<&Tensor>)?;
        Ok(())
    }))
}

pub fn projection_qkv(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    let output = (c.heads + 2 * c.kv_heads) * c.head_dim;
    projection(shape, c.hidden_size, output)
}

pub fn projection_output(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    projection(shape, c.heads * c.head_dim, c.hidden_size)
}

pub fn projection_gate_up(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    projection(shape, c.hidden_size, 2 * c.intermediate_size)
}

pub fn projection_down(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    projection(shape, c.intermediate_size, c.hidden_size)
}

pub fn rotary(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    let (n, heads, width) = (shape.tokens, c.heads + c.kv_heads, c.head_dim);
    let bytes = (n * heads * width) as f64 * 2.0 * shape.size();
    let inputs = rotated(bytes, || drawn(shape, &[n as i64, heads as i64, width as i64]))?;
    let positions = integers(shape, 0..n as i64)?;
    let angles = Rotary::new(c, shape.device).angles(&positions, shape.kind);
    let work = Work { flops: 3.0 * (n * heads * width) as f64, bytes };
    Ok(kernel(format!("[{n}, {heads}, {width}]"), work, move |run| {
        let _guard = no_grad_guard();
        let _ = rotate(&inputs[run % inputs.len()], &angles)?;
        Ok(())
    }))
}

pub fn swiglu(shape: &Shape) -> Result<Kernel, LmError> {
    let (n, inner) = (shape.tokens, shape.config.intermediate_size);
    let bytes = (n * inner) as f64 * 3.0 * shape.size();
    let inputs = rotated(bytes, || drawn(shape, &[n as i64, 2 * inner as i64]))?;
    let work = Work { flops: 5.0 * (n * inner) as f64, bytes };
    Ok(kernel(format!("[{n}, 2 · {inner}]"), work, move |run| {
        let _guard = no_grad_guard();
        let _ = model::swiglu(&inputs[run % inputs.len()])?;
        Ok(())
    }))
}

/// Queries, keys and values of `n` tokens.
fn heads(shape: &Shape, n: usize) -> Result<[Tensor; 3], LmError> {
    let c = &shape.config;
    let of = |heads: usize| drawn(shape, &[n as i64, heads as i64, c.head_dim as i64]);
    Ok([of(c.heads)?, of(c.kv_heads)?, of(c.kv_heads)?])
}

/// Bytes of queries and outputs of `n` tokens, and of keys and values of `seen` tokens.
fn attention_bytes(shape: &Shape, n: usize, seen: usize) -> f64 {
    let c = &shape.config;
    (2 * n * c.heads + 2 * seen * c.kv_heads) as f64 * c.head_dim as f64 * shape.size()
}

/// Synthetic rows: `rows` responses to one prompt.
fn forest(prompt: usize, rows: usize, response: usize) -> Result<Pack, LmError> {
    let start: Vec<u32> = (0..prompt as u32).map(|i| i % 7).collect();
    // Each response starts with a distinct token, so that only the prompt is shared.
    let row = |row: usize| {
        let own: Vec<u32> = (0..response as u32).map(|i| 8 + (i + row as u32) % 97).collect();
        Row::call(&start, &[&[110 + row as u32], &own[1..]].concat())
    };
    let rows: Vec<Row> = (0..rows).map(row).collect();
    let packs = pack(&rows, &vec![0; rows.len()], usize::MAX);
    let mut packs = packs.map_err(|e| LmError::Invalid(e.to_string()))?;
    packs.pop().ok_or_else(|| LmError::Invalid("nothing to pack".to_owned()))
}

/// Number of pairs of a token and a token that it attends to, including itself.
fn pairs(pack: &Pack) -> f64 {
    let mut depth = vec![0usize; pack.len()];
    for node in 0..pack.len() {
        depth[node] = 1 + pack.parents[node].map_or(0, |parent| depth[parent]);
    }
    depth.iter().sum::<usize>() as f64
}

fn attention(
    shape: &Shape,
    packed: &Pack,
    description: String,
    backward: bool,
) -> Result<Kernel, LmError> {
    let c = &shape.config;
    let n = packed.len();
    // Two products, scores and weighted values; the backward pass has two for each.
    let forward = 4.0 * pairs(packed) * (c.heads * c.head_dim) as f64;
    let bytes = attention_bytes(shape, n, n);
    let factor = if backward { 3.0 } else { 1.0 };
    let work = Work { flops: factor * forward, bytes: factor * bytes };
    let inputs = rotated(bytes, || {
        let of = heads(shape, n)?;
        Ok(of.map(|x| if backward { x.set_requires_grad(true) } else { x }))
    })?;
    let widths = (c.heads, c.kv_heads, c.head_dim);
    let mut attention = ForestAttention::new(packed, widths, shape.kind, shape.device)?;
    Ok(kernel(description, work, move |run| {
        let [q, k, v] = &inputs[run % inputs.len()];
        if backward {
            let out = attention.attend(0, q, k, v)?;
            let gradient = out.ones_like();
            Tensor::f_run_backward(&[out * gradient], &[q, k, v], false, false)?;
        } else {
            let _guard = no_grad_guard();
            let _ = attention.attend(0, q, k, v)?;
        }
        Ok(())
    }))
}

pub fn attention_prefill(shape: &Shape) -> Result<Kernel, LmError> {
    let n = shape.tokens;
    let chain = forest(n - 1, 1, 1)?;
    attention(shape, &chain, format!("{n} tokens, causal"), false)
}

/// A prompt of half the tokens, shared by eight responses.
fn tree(shape: &Shape) -> Result<(Pack, String), LmError> {
    let (prompt, response) = (shape.tokens / 2, (shape.tokens / 16).max(1));
    Ok((forest(prompt, 8, response)?, format!("8 responses of {response} to {prompt} tokens")))
}

pub fn attention_tree(shape: &Shape) -> Result<Kernel, LmError> {
    let (packed, description) = tree(shape)?;
    attention(shape, &packed, description, false)
}

pub fn attention_tree_backward(shape: &Shape) -> Result<Kernel, LmError> {
    let (packed, description) = tree(shape)?;
    attention(shape, &packed, description, true)
}

pub fn attention_decode(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    let groups = (shape.prompts, shape.samples);
    let lengths = (shape.prompt, shape.response);
    let rows = shape.rows();
    let inputs = rotated(attention_bytes(shape, rows, 0), || heads(shape, rows))?;
    let options = (shape.kind, shape.device);
    let first = DecodeAttention::new(c, options, groups, lengths)?;
    let bytes = attention_bytes(shape, rows, first.cached());
    let flops = 4.0 * first.visible() as f64 * (c.heads * c.head_dim) as f64;
    // Enough layers that the KV cache exceeds the processor cache.
    let mut layers = vec![first];
    let more = rotated(bytes, || Ok(()))?.len().min(c.layers) - 1;
    for _ in 0..more {
        layers.push(DecodeAttention::new(c, options, groups, lengths)?);
    }
    let description = format!(
        "{rows} rows of 1 to {} tokens on {} prompts of {}",
        shape.response, shape.prompts, shape.prompt
    );
    Ok(kernel(description, Work { flops, bytes }, move |run| {
        let _guard = no_grad_guard();
        let [q, k, v] = &inputs[run % inputs.len()];
        let layer = run % layers.len();
        let _ = layers[layer].attend(q, k, v)?;
        Ok(())
    }))
}

/// The head at the actions of the tree: forward, or forward and backward.
fn head(shape: &Shape, backward: bool) -> Result<Kernel, LmError> {
    let c = &shape.config;
    let (packed, _) = tree(shape)?;
    let (width, vocab) = (c.hidden_size, c.vocab_size);
    let actions = packed.actions.len();
    let hidden = drawn(shape, &[packed.len() as i64, width as i64])?;
    let weight = drawn(shape, &[vocab as i64, width as i64])?.f_mul_scalar(0.02)?;
    let gradient = Tensor::f_zeros([vocab as i64, width as i64], (Kind::Float, shape.device))?;
    let product = 2.0 * (actions * width * vocab) as f64;
    let flops = if backward { 3.0 * product } else { product };
    let read = ((vocab + actions) * width) as f64 * shape.size();
    // The backward pass also accumulates the table's gradient, in f32.
    let bytes = if backward { 2.0 * read + 8.0 * (vocab * width) as f64 } else { read };
    let description = format!("{actions} actions, [{width}] by [{vocab}, {width}]");
    let slopes = vec![1.0 / actions as f64; actions];
    Ok(kernel(description, Work { flops, bytes }, move |_| {
        let mut head = Head::new(&packed, &weight, 1.0)?;
        head.forward(&hidden)?;
        if backward {
            let cotangent = HeadCotangent { logp: &slopes, entropy: None };
            let _ = head.backward(&hidden, &cotangent, Some(&gradient))?;
        }
        Ok(())
    }))
}

pub fn head_forward(shape: &Shape) -> Result<Kernel, LmError> {
    head(shape, false)
}

pub fn head_backward(shape: &Shape) -> Result<Kernel, LmError> {
    head(shape, true)
}

pub fn sampling(shape: &Shape) -> Result<Kernel, LmError> {
    let (rows, vocab) = (shape.rows(), shape.config.vocab_size);
    let bytes = (rows * vocab) as f64 * shape.size();
    let logits = rotated(bytes, || drawn(shape, &[rows as i64, vocab as i64]))?;
    let uniforms: Vec<f64> =
        (0..rows).map(|row| SeedTree::new(2).index(row as u64).uniform()).collect();
    let work = Work { flops: 0.0, bytes };
    Ok(kernel(format!("[{rows}, {vocab}]"), work, move |run| {
        let _guard = no_grad_guard();
        draw(&logits[run % logits.len()], 1.0, &uniforms)?;
        Ok(())
    }))
}

/// AdamW on the parameters of one layer, in f32.
pub fn adamw(shape: &Shape) -> Result<Kernel, LmError> {
    let c = &shape.config;
    let numbers =
        c.hidden_size * ((2 * c.heads + 2 * c.kv_heads) * c.head_dim + 3 * c.intermediate_size);
    let tensor = Tensor::f_zeros([numbers as i64], (Kind::Float, Device::Cpu))?;
    let named = vec![("layer".to_owned(), tensor)];
    let parameters = Parameters::new(named, Kind::Float, shape.device, true)?;
    let mut optimizer = Optimizer::new(&parameters, OptimizerConfig::default())?;
    // Reads four arrays, writes three.
    let work = Work { flops: 12.0 * numbers as f64, bytes: 28.0 * numbers as f64 };
    Ok(kernel(format!("{numbers} parameters of a layer, f32"), work, move |_| {
        optimizer.step(&parameters, 1.0)
    }))
}

/// Credit, advantage and loss with its gradient, with the default algorithm; always on the CPU.
pub fn credit_advantage_loss(shape: &Shape) -> Result<Kernel, LmError> {
    const CALLS: usize = 4;
    let rollouts = 8 * shape.rows();
    let tokens = shape.response;
    let trajectories: Vec<Trajectory> = (0..rollouts)
        .map(|index| {
            let mut trajectory =
                Trajectory::of_calls(index / 8, f64::from(index as u32 % 3), CALLS);
            trajectory.calls.iter_mut().for_each(|call| call.tokens = tokens);
            trajectory
        })
        .collect();
    let rows = Rows::dense(&vec![tokens; rollouts * CALLS]);
    let logp: Vec<f64> = (0..rows.tokens()).map(|t| -0.01 * (t % 100) as f64).collect();
    let algorithm = AlgorithmConfig::default();
    let weights = algorithm.token_weights(&rows);
    let entropies = vec![0.0; rows.tokens()];
    let description = format!("{rollouts} rollouts of {CALLS} calls of {tokens} tokens");
    // Reads log-probabilities three times, writes advantages, weights and slopes.
    let work = Work { flops: 0.0, bytes: 6.0 * 8.0 * rows.tokens() as f64 };
    Ok(kernel(description, work, move |_| {
        let assigned = algorithm
            .assign(&trajectories, &rows, None)
            .map_err(|e| LmError::Invalid(e.to_string()))?;
        algorithm.objective(&ObjectiveInput {
            policy: LossInput {
                rows: &rows,
                logp_new: &logp,
                logp_old: &logp,
                advantages: &assigned.advantages.per_token,
                weights: &weights,
            },
            entropies: &entropies,
            logp_sampler: &logp,
            logp_ref: None,
            kl_coefficient: 0.0,
        });
        Ok(())
    }))
}
