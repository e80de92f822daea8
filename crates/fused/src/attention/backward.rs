//! Gradients of attention.
//!
//! With P the probabilities, dP = dO vᵀ and D = Σ dO · O for each query:
//! dS = P ∘ (dP − D) / √d, dq = dS k, dk = dSᵀ q, dv = Pᵀ dO. A task is one tree and one query
//! head, so tasks write disjoint elements; heads that share a key head are summed at the end,
//! always in the same order.

use std::ops::Range;

use super::plan::Tile;
use super::{Heads, Plan, Shape, by_token, gather_rows};
use crate::element::{Element, widen};
use crate::product::{Matrix, Out, Panels, product};
use crate::simd::{Kernel, LANES, Simd, dispatch, exp};
use crate::threads::{Shared, each};

/// Queries whose scores are held at once.
const QUERIES: usize = 48;

/// The outputs of [`forward`](super::forward), and the gradient of its result.
#[derive(Clone, Copy)]
pub struct Outcome<'a, T> {
    /// [tokens, heads, head_dim]
    pub mixed: &'a [T],
    /// [heads, tokens]
    pub log_sums: &'a [f32],
    /// [tokens, heads, head_dim]
    pub gradient: &'a [T],
}

/// Gradients of [`forward`](super::forward)'s inputs, to `of_q` [tokens, heads, head_dim],
/// `of_k` and `of_v` [tokens, kv_heads, head_dim].
///
/// # Panics
/// As [`forward`](super::forward).
#[allow(clippy::too_many_arguments, reason = "inputs, outputs and gradients of one function")]
pub fn backward<T: Element>(
    threads: usize,
    plan: &Plan,
    shape: Shape,
    q: Heads<T>,
    k: Heads<T>,
    v: Heads<T>,
    outcome: Outcome<T>,
    [of_q, of_k, of_v]: [&mut [T]; 3],
) {
    assert!(shape.supported(), "{shape:?}");
    let (n, Shape { heads, kv_heads, head_dim }) = (plan.tokens(), shape);
    let size = n * heads * head_dim;
    let Outcome { mixed, log_sums, gradient } = outcome;
    assert!(mixed.len() == size && gradient.len() == size && log_sums.len() == n * heads);
    let kv_size = n * kv_heads * head_dim;
    assert!(of_q.len() == size && of_k.len() == kv_size && of_v.len() == kv_size);
    let (mut by_head_k, mut by_head_v) = (vec![0.0_f32; size], vec![0.0_f32; size]);
    {
        let outs = (Shared::new(of_q), Shared::new(&mut by_head_k), Shared::new(&mut by_head_v));
        let tasks: Vec<(&[Tile], usize)> = plan
            .trees
            .iter()
            .flat_map(|tree| (0..heads).map(move |head| (tree.as_slice(), head)))
            .collect();
        let mixed = Heads::packed(mixed, heads, head_dim);
        let gradient = Heads::packed(gradient, heads, head_dim);
        each(threads, tasks.len(), |task| {
            let (tiles, head) = tasks[task];
            let log_sums = &log_sums[head * n..(head + 1) * n];
            let inputs = Inputs { n, shape, head, q, k, v, mixed, gradient, log_sums };
            dispatch(Backward { tiles, inputs, of_q: &outs.0, of_k: &outs.1, of_v: &outs.2 });
        });
    }
    add_heads(threads, shape, &by_head_k, of_k);
    add_heads(threads, shape, &by_head_v, of_v);
}

/// [heads, tokens, head_dim] → [tokens, kv_heads, head_dim], summing the heads that share a key
/// head.
fn add_heads<T: Element>(threads: usize, shape: Shape, by_head: &[f32], out: &mut [T]) {
    /// Tokens per task.
    const TOKENS: usize = 256;
    let Shape { heads, kv_heads, head_dim } = shape;
    let (shared, n) = (shape.shared(), by_head.len() / (heads * head_dim));
    let width = kv_heads * head_dim;
    let out = Shared::new(out);
    each(threads, n.div_ceil(TOKENS), |task| {
        let tokens = task * TOKENS..n.min((task + 1) * TOKENS);
        // SAFETY: tasks write disjoint tokens.
        let out = unsafe { out.part(tokens.start * width, tokens.len() * width) };
        for (token, out) in tokens.zip(out.chunks_exact_mut(width)) {
            for (kv_head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let part = |i: usize| {
                    let start = ((kv_head * shared + i) * n + token) * head_dim;
                    &by_head[start..start + head_dim]
                };
                for (d, out) in out.iter_mut().enumerate() {
                    *out = T::narrow((0..shared).map(|i| part(i)[d]).sum());
                }
            }
        }
    });
}

#[derive(Clone, Copy)]
struct Inputs<'a, T> {
    n: usize,
    shape: Shape,
    head: usize,
    q: Heads<'a, T>,
    k: Heads<'a, T>,
    v: Heads<'a, T>,
    mixed: Heads<'a, T>,
    gradient: Heads<'a, T>,
    log_sums: &'a [f32],
}

/// One tree and one query head.
struct Backward<'a, T> {
    tiles: &'a [Tile],
    inputs: Inputs<'a, T>,
    of_q: &'a Shared<T>,
    of_k: &'a Shared<f32>,
    of_v: &'a Shared<f32>,
}

impl<T: Element> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Inputs { n, shape, head, .. } = self.inputs;
        let hd = shape.head_dim;
        let longest = self.tiles.iter().map(|tile| tile.keys.len()).max().unwrap_or(0);
        let mut buffers = Buffers::new(longest, hd);
        for tile in self.tiles {
            // SAFETY: the caller guarantees the instruction set.
            unsafe { buffers.tile::<S, T>(tile, &self.inputs, self.of_q) };
            let keys = tile.keys.len();
            for (of, sums) in [(self.of_k, &buffers.of_keys), (self.of_v, &buffers.of_values)] {
                for (key, token) in tile.keys.iter().enumerate() {
                    let Some(token) = *token else { continue };
                    // SAFETY: exactly one task writes each (tree, head).
                    let to = unsafe { of.part((head * n + token as usize) * hd, hd) };
                    for (d, to) in to.iter_mut().enumerate() {
                        *to += sums[d * keys + key];
                    }
                }
            }
        }
    }
}

struct Buffers {
    /// [keys, head_dim]
    keys: Vec<f32>,
    /// [keys / 16, head_dim, 16]
    key_panels: Vec<f32>,
    value_panels: Vec<f32>,
    /// [head_dim, keys], summed over a tile's queries.
    of_keys: Vec<f32>,
    of_values: Vec<f32>,
    /// [queries, head_dim], and the same transposed.
    queries: Vec<f32>,
    gradients: Vec<f32>,
    transposed: Vec<f32>,
    /// [queries, keys]: scores, then probabilities; their gradients.
    scores: Vec<f32>,
    of_scores: Vec<f32>,
    of_queries: Vec<f32>,
}

impl Buffers {
    fn new(keys: usize, hd: usize) -> Self {
        let zeros = |length: usize| vec![0.0; length];
        Self {
            keys: zeros(keys * hd),
            key_panels: zeros(keys * hd),
            value_panels: zeros(keys * hd),
            of_keys: zeros(keys * hd),
            of_values: zeros(keys * hd),
            queries: zeros(QUERIES * hd),
            gradients: zeros(QUERIES * hd),
            transposed: zeros(QUERIES * hd),
            scores: zeros(QUERIES * keys),
            of_scores: zeros(QUERIES * keys),
            of_queries: zeros(QUERIES * hd),
        }
    }

    /// Writes one tile's sums to `of_keys` and `of_values`, and its queries' gradients to `of_q`.
    #[inline(always)]
    unsafe fn tile<S: Simd, T: Element>(
        &mut self,
        tile: &Tile,
        inputs: &Inputs<T>,
        of_q: &Shared<T>,
    ) {
        let Inputs { shape, head, q, k, v, gradient, .. } = *inputs;
        let (hd, keys) = (shape.head_dim, tile.keys.len());
        let kv_head = head / shape.shared();
        let rows = &mut self.keys[..keys * hd];
        // SAFETY: the caller guarantees the instruction set.
        unsafe {
            gather_rows::<S, T>(v, kv_head, hd, &tile.keys, rows);
            by_token(rows, hd, &mut self.value_panels[..keys * hd]);
            gather_rows::<S, T>(k, kv_head, hd, &tile.keys, rows);
        }
        by_token(rows, hd, &mut self.key_panels[..keys * hd]);
        self.of_keys[..keys * hd].fill(0.0);
        self.of_values[..keys * hd].fill(0.0);
        for first in (0..tile.tokens.len()).step_by(QUERIES) {
            let count = QUERIES.min(tile.tokens.len() - first);
            let runs = tile.runs(first..first + count);
            for row in 0..count {
                let token = tile.tokens.start as usize + first + row;
                let place = row * hd..(row + 1) * hd;
                // SAFETY: guaranteed by the caller.
                unsafe {
                    widen::<S, T>(q.at(token, head, hd), &mut self.queries[place.clone()]);
                    widen::<S, T>(gradient.at(token, head, hd), &mut self.gradients[place]);
                }
            }
            // SAFETY: guaranteed by the caller; the buffers hold the longest tile.
            unsafe {
                self.scores::<S>((count, &runs, keys), hd);
                for row in 0..count {
                    self.row::<S, T>(tile, inputs, first, row, (&runs, keys));
                }
                self.sums::<S>((count, &runs, keys), hd);
                for row in 0..count {
                    let token = tile.tokens.start as usize + first + row;
                    // Exactly one task writes each (token, head).
                    let to = of_q.part((token * shape.heads + head) * hd, hd);
                    for at in (0..hd).step_by(LANES) {
                        let x = S::load(self.of_queries.as_ptr().add(row * hd + at));
                        T::store::<S>(to.as_mut_ptr().add(at), x);
                    }
                }
            }
        }
    }

    /// q kᵀ and dO vᵀ.
    #[inline(always)]
    unsafe fn scores<S: Simd>(
        &mut self,
        (count, runs, keys): (usize, &[Range<usize>], usize),
        hd: usize,
    ) {
        let rows = |of: &[f32]| Matrix { at: of.as_ptr(), stride: hd };
        for run in runs {
            let (shape, start) = ((count, run.len(), hd), run.start * LANES);
            let panels = |of: &[f32]| Panels {
                at: of[start * hd..].as_ptr(),
                panel: hd * LANES,
                step: LANES,
            };
            let out =
                |of: &mut [f32]| Out { at: of[start..].as_mut_ptr(), stride: keys, add: false };
            // SAFETY: guaranteed by the caller.
            unsafe {
                let (q, k) = (rows(&self.queries), panels(&self.key_panels));
                product::<S, f32>(shape, q, k, out(&mut self.scores));
                let (o, v) = (rows(&self.gradients), panels(&self.value_panels));
                product::<S, f32>(shape, o, v, out(&mut self.of_scores));
            }
        }
    }

    /// Turns one query's scores into probabilities and computes the gradients of its scores.
    #[inline(always)]
    unsafe fn row<S: Simd, T: Element>(
        &mut self,
        tile: &Tile,
        inputs: &Inputs<T>,
        first: usize,
        row: usize,
        (runs, keys): (&[Range<usize>], usize),
    ) {
        let hd = inputs.shape.head_dim;
        let token = tile.tokens.start as usize + first + row;
        let mixed = inputs.mixed.at(token, inputs.head, hd);
        let scale = 1.0 / (hd as f32).sqrt();
        // SAFETY: guaranteed by the caller; the blocks of `runs` in each row of `keys`.
        unsafe {
            let mut sum = S::splat(0.0);
            for at in (0..hd).step_by(LANES) {
                let o = T::load::<S>(mixed.as_ptr().add(at));
                sum = S::fma(o, S::load(self.gradients.as_ptr().add(row * hd + at)), sum);
            }
            let mean = S::splat(S::sum(sum));
            let log_sum = S::splat(inputs.log_sums[token]);
            for block in runs.iter().cloned().flatten() {
                let at = row * keys + block * LANES;
                let (p, dp) =
                    (self.scores.as_mut_ptr().add(at), self.of_scores.as_mut_ptr().add(at));
                let probability = exp::<S>(S::sub(S::mul(S::load(p), S::splat(scale)), log_sum));
                let probability = match tile.seen(first + row, block) {
                    u16::MAX => probability,
                    bits => S::where_bits(bits, probability, S::splat(0.0)),
                };
                S::store(p, probability);
                let slope = S::mul(S::sub(S::load(dp), mean), S::splat(scale));
                S::store(dp, S::mul(probability, slope));
            }
        }
    }

    /// Computes dS k, and adds dSᵀ q and Pᵀ dO to the tile's sums.
    #[inline(always)]
    unsafe fn sums<S: Simd>(
        &mut self,
        (count, runs, keys): (usize, &[Range<usize>], usize),
        hd: usize,
    ) {
        for (number, run) in runs.iter().enumerate() {
            let start = run.start * LANES;
            // SAFETY: guaranteed by the caller.
            unsafe {
                product::<S, f32>(
                    (count, hd / LANES, run.len() * LANES),
                    Matrix { at: self.of_scores[start..].as_ptr(), stride: keys },
                    Panels { at: self.keys[start * hd..].as_ptr(), panel: LANES, step: hd },
                    Out { at: self.of_queries.as_mut_ptr(), stride: hd, add: number > 0 },
                );
            }
        }
        for (rows, weights, sums) in [
            (&self.queries, &self.of_scores, &mut self.of_keys),
            (&self.gradients, &self.scores, &mut self.of_values),
        ] {
            for (row, numbers) in rows[..count * hd].chunks_exact(hd).enumerate() {
                for (d, &x) in numbers.iter().enumerate() {
                    self.transposed[d * QUERIES + row] = x;
                }
            }
            for run in runs {
                let start = run.start * LANES;
                // SAFETY: guaranteed by the caller.
                unsafe {
                    product::<S, f32>(
                        (hd, run.len(), count),
                        Matrix { at: self.transposed.as_ptr(), stride: QUERIES },
                        Panels { at: weights[start..].as_ptr(), panel: LANES, step: keys },
                        Out { at: sums[start..].as_mut_ptr(), stride: keys, add: true },
                    );
                }
            }
        }
    }
}
