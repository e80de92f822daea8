//! Parallel evaluation of losses over rows.
//!
//! A loss is a sum over rows, so rows can be computed independently. They are split into pieces by
//! their lengths only and the pieces' sums are added in order: the result is the same on any number
//! of cores.

use std::ops::Range;

use crate::loss::rule::{LossInput, LossStatistics, PolicyLoss};

/// The sums over consecutive rows, and their part of the gradient.
pub(super) struct Piece<'a> {
    pub loss: f64,
    pub statistics: LossStatistics,
    grad: &'a mut [f64],
    /// Flat position of the gradient's first entry.
    first: usize,
}

impl Piece<'_> {
    /// The entry of the gradient at flat position `t`.
    pub fn grad(&mut self, t: usize) -> &mut f64 {
        &mut self.grad[t - self.first]
    }

    /// The entries of a row's range.
    pub fn grad_of(&mut self, range: Range<usize>) -> &mut [f64] {
        &mut self.grad[range.start - self.first..range.end - self.first]
    }
}

/// Calls `add` for every row with its piece.
///
/// # Panics
/// If an array does not have one entry per token.
pub(super) fn over_rows(input: &LossInput, add: impl Fn(usize, &mut Piece) + Sync) -> PolicyLoss {
    input.assert_fits();
    let (grad, pieces) = input.rows.make_in_pieces(|rows, grad| {
        let first = input.rows.range(rows.start).start;
        let mut piece = Piece { loss: 0.0, statistics: LossStatistics::default(), grad, first };
        for row in rows {
            add(row, &mut piece);
        }
        (piece.loss, piece.statistics)
    });
    let mut total = PolicyLoss { grad, ..PolicyLoss::default() };
    for (loss, statistics) in pieces {
        total.loss += loss;
        total.statistics.merge(&statistics);
    }
    total
}

/// A sum in four independent accumulators, for instruction-level parallelism.
pub(super) fn sum(values: &[f64]) -> f64 {
    let (fours, rest) = values.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        (0..4).for_each(|i| sums[i] += four[i]);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest.iter().sum::<f64>()
}
