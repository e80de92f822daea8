//! Attention outputs, and the log-sum-exp values that the backward pass needs.

use std::ops::Range;

use super::plan::Tile;
use super::{Heads, Plan, Shape, by_token, gather_rows};
use crate::element::{Element, widen};
use crate::product::{Matrix, Out, Panels, product};
use crate::simd::{Kernel, LANES, Simd, dispatch, exp};
use crate::threads::{Shared, each};

/// Queries whose scores are held at once; a multiple of the product's register rows.
const QUERIES: usize = 24;

/// softmax(q kᵀ / √head_dim) v over the keys that `plan` makes visible to each token, written to
/// `mixed` [tokens, heads, head_dim]; returns ln Σ exp(score) [heads, tokens].
///
/// # Panics
/// If the shape is not [supported](Shape::supported) or the sizes do not match.
pub fn forward<T: Element>(
    threads: usize,
    plan: &Plan,
    shape: Shape,
    q: Heads<T>,
    k: Heads<T>,
    v: Heads<T>,
    mixed: &mut [T],
) -> Vec<f32> {
    assert!(shape.supported(), "{shape:?}");
    let n = plan.tokens();
    assert_eq!(mixed.len(), n * shape.heads * shape.head_dim);
    let mut log_sums = vec![0.0; n * shape.heads];
    let tasks: Vec<(&Tile, usize)> = (0..shape.kv_heads)
        .flat_map(|head| plan.trees.iter().flatten().map(move |tile| (tile, head)))
        .collect();
    let (mixed_out, log_sums_out) = (Shared::new(mixed), Shared::new(&mut log_sums));
    each(threads, tasks.len(), |task| {
        let (tile, kv_head) = tasks[task];
        dispatch(Forward {
            tile,
            kv_head,
            n,
            shape,
            q,
            k,
            v,
            mixed: &mixed_out,
            log_sums: &log_sums_out,
        });
    });
    log_sums
}

/// One tile and one key head.
struct Forward<'a, T> {
    tile: &'a Tile,
    kv_head: usize,
    n: usize,
    shape: Shape,
    q: Heads<'a, T>,
    k: Heads<'a, T>,
    v: Heads<'a, T>,
    mixed: &'a Shared<T>,
    log_sums: &'a Shared<f32>,
}

impl<T: Element> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let hd = self.shape.head_dim;
        let shared = self.shape.shared();
        let keys = self.tile.keys.len();
        let mut values = vec![0.0; keys * hd];
        let mut panels = vec![0.0; keys * hd];
        // SAFETY: the caller guarantees the instruction set.
        unsafe {
            gather_rows::<S, T>(self.k, self.kv_head, hd, &self.tile.keys, &mut values);
            by_token(&values, hd, &mut panels);
            gather_rows::<S, T>(self.v, self.kv_head, hd, &self.tile.keys, &mut values);
        }
        let mut scores = vec![0.0; QUERIES * keys];
        let mut queries = vec![0.0; QUERIES * hd];
        let mut out = vec![0.0; QUERIES * hd];
        let scale = 1.0 / (hd as f32).sqrt();
        // Rows are the tile's tokens, with all heads that share a key head.
        let rows = self.tile.tokens.len() * shared;
        for first in (0..rows).step_by(QUERIES) {
            let count = QUERIES.min(rows - first);
            let place = |row: usize| ((first + row) / shared, (first + row) % shared);
            let runs = self.tile.runs(place(0).0..place(count - 1).0 + 1);
            for row in 0..count {
                let (query, head) = place(row);
                let token = self.tile.tokens.start as usize + query;
                let from = self.q.at(token, self.kv_head * shared + head, hd);
                // SAFETY: guaranteed by the caller.
                unsafe { widen::<S, T>(from, &mut queries[row * hd..(row + 1) * hd]) };
            }
            for run in &runs {
                let start = run.start * LANES;
                // SAFETY: guaranteed by the caller; every buffer has the length given by the
                // shapes.
                unsafe {
                    product::<S, f32>(
                        (count, run.len(), hd),
                        Matrix { at: queries.as_ptr(), stride: hd },
                        Panels {
                            at: panels[start * hd..].as_ptr(),
                            panel: hd * LANES,
                            step: LANES,
                        },
                        Out { at: scores[start..].as_mut_ptr(), stride: keys, add: false },
                    );
                }
            }
            for row in 0..count {
                let (query, head) = place(row);
                let token = self.tile.tokens.start as usize + query;
                let scores = &mut scores[row * keys..(row + 1) * keys];
                // SAFETY: guaranteed by the caller; each (head, token) is one row of one task.
                unsafe {
                    let seen = |block| self.tile.seen(query, block);
                    let (sum, log_sum) = softmax::<S>(scores, &runs, scale, seen);
                    queries[row * hd] = 1.0 / sum;
                    let head = self.kv_head * shared + head;
                    self.log_sums.part(head * self.n + token, 1)[0] = log_sum;
                }
            }
            for (number, run) in runs.iter().enumerate() {
                let start = run.start * LANES;
                // SAFETY: as above.
                unsafe {
                    product::<S, f32>(
                        (count, hd / LANES, run.len() * LANES),
                        Matrix { at: scores[start..].as_ptr(), stride: keys },
                        Panels { at: values[start * hd..].as_ptr(), panel: LANES, step: hd },
                        Out { at: out.as_mut_ptr(), stride: hd, add: number > 0 },
                    );
                }
            }
            for row in 0..count {
                let (query, head) = place(row);
                let token = self.tile.tokens.start as usize + query;
                let head = self.kv_head * shared + head;
                let inverse = queries[row * hd];
                // SAFETY: as above.
                unsafe {
                    let to = self.mixed.part((token * self.shape.heads + head) * hd, hd);
                    for at in (0..hd).step_by(LANES) {
                        let x = S::load(out.as_ptr().add(row * hd + at));
                        T::store::<S>(to.as_mut_ptr().add(at), S::mul(x, S::splat(inverse)));
                    }
                }
            }
        }
    }
}

/// Turns raw `scores` in the blocks of `runs` into exp(scale · score − largest), or 0 if the bit of
/// `seen` is not set; returns the sum and the log-sum-exp.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(
    scores: &mut [f32],
    runs: &[Range<usize>],
    scale: f32,
    seen: impl Fn(usize) -> u16,
) -> (f32, f32) {
    assert!(runs.last().is_none_or(|run| run.end * LANES <= scores.len()));
    let at = scores.as_mut_ptr();
    let blocks = || runs.iter().cloned().flatten();
    // SAFETY: guaranteed by the caller; every block is inside the row, as just asserted.
    unsafe {
        let hidden = S::splat(f32::NEG_INFINITY);
        let mut largest = hidden;
        for block in blocks() {
            let x = S::mul(S::load(at.add(block * LANES)), S::splat(scale));
            let x = match seen(block) {
                u16::MAX => x,
                bits => S::where_bits(bits, x, hidden),
            };
            S::store(at.add(block * LANES), x);
            largest = S::max(largest, x);
        }
        let largest = S::largest(largest);
        let mut sum = S::splat(0.0);
        for block in blocks() {
            let x = S::sub(S::load(at.add(block * LANES)), S::splat(largest));
            let e = exp::<S>(x);
            S::store(at.add(block * LANES), e);
            sum = S::add(sum, e);
        }
        let sum = S::sum(sum);
        (sum, largest + sum.ln())
    }
}
