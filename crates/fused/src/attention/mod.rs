//! Attention over packed trees: each token attends to itself and its ancestors.
//!
//! Scores of a few queries against all visible keys are computed, turned into probabilities and
//! consumed while they are still in the CPU cache; keys that a query does not see are skipped,
//! except within a block of sixteen. The backward pass recomputes the scores from their log-sum-exp
//! (Dao et al. 2022).

mod backward;
pub mod cached;
mod forward;
mod plan;

pub use backward::{Outcome, backward};
pub use forward::forward;
pub use plan::Plan;

use crate::element::{Element, widen};
use crate::simd::{LANES, Simd};

/// Vectors of every token and head: head `h` of token `t` begins at t · token + h · head.
#[derive(Clone, Copy)]
pub struct Heads<'a, T> {
    pub data: &'a [T],
    pub token: usize,
    pub head: usize,
}

impl<'a, T> Heads<'a, T> {
    /// [tokens, heads, head_dim], contiguous.
    pub fn packed(data: &'a [T], heads: usize, head_dim: usize) -> Self {
        Self { data, token: heads * head_dim, head: head_dim }
    }

    #[inline(always)]
    fn at(&self, token: usize, head: usize, head_dim: usize) -> &'a [T] {
        let start = token * self.token + head * self.head;
        &self.data[start..start + head_dim]
    }
}

/// Numbers of heads and their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub heads: usize,
    /// Divides `heads`; query head h uses key head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// A multiple of sixteen.
    pub head_dim: usize,
}

impl Shape {
    /// Whether these kernels support the shape.
    pub fn supported(&self) -> bool {
        self.kv_heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && self.head_dim > 0
            && self.head_dim.is_multiple_of(LANES)
    }

    fn shared(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Gathers the given tokens' vectors as rows, [tokens, head_dim]; positions without a token are
/// zero.
#[inline(always)]
unsafe fn gather_rows<S: Simd, T: Element>(
    from: Heads<T>,
    head: usize,
    head_dim: usize,
    tokens: &[Option<u32>],
    rows: &mut [f32],
) {
    for (row, token) in rows.chunks_exact_mut(head_dim).zip(tokens) {
        match token {
            // SAFETY: guaranteed by the caller.
            Some(token) => unsafe {
                widen::<S, T>(from.at(*token as usize, head, head_dim), row);
            },
            None => row.fill(0.0),
        }
    }
}

/// Rows [tokens, head_dim] as panels of sixteen tokens, [tokens / 16, head_dim, 16].
#[inline(always)]
fn by_token(rows: &[f32], head_dim: usize, panels: &mut [f32]) {
    let block = head_dim * LANES;
    for (rows, panel) in rows.chunks_exact(block).zip(panels.chunks_exact_mut(block)) {
        for (lane, row) in rows.chunks_exact(head_dim).enumerate() {
            for (d, &x) in row.iter().enumerate() {
                panel[d * LANES + lane] = x;
            }
        }
    }
}

#[cfg(test)]
mod tests;
