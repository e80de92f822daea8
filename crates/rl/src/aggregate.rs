//! Loss aggregation: the weight of each token.
//!
//! An aggregation mode is a weight per token: the loss of a batch is `Σ_t weight_t · L_t` over the
//! tokens inside the mask. The weights are computed once over the whole batch of one update; a
//! caller that splits the batch into micro-batches slices the weights accordingly, and the sums
//! over the parts add up to the same loss and gradient. (In libraries that take means per
//! micro-batch, the gradient depends on the split.)

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive};
use crate::rows::Rows;

/// Added to token counts used as divisors, as in verl.
pub(crate) const COUNT_EPSILON: f64 = 1e-8;

/// How token losses are reduced to one number; the names are verl's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Mean over all tokens (DAPO): long rows weigh more.
    #[default]
    TokenMean,
    /// Sum over a row's tokens, mean over rows with tokens.
    SeqMeanTokenSum,
    /// Mean over a row's tokens, mean over rows with tokens (the original GRPO).
    SeqMeanTokenMean,
    /// Sum over a row's tokens divided by a constant, mean over rows with tokens (Dr.GRPO, Liu et
    /// al., arXiv 2503.20783, listing 1); see [`AggregationConstant`].
    ///
    /// Its scale is not that of the token mean: with a budget of c tokens and rows of n tokens in
    /// the mean, losses and gradients are n/c of it. The gradient norm at which to clip
    /// (`train.grad_clip`) must be chosen for this scale, and the learning rate, too, unless the
    /// optimiser is invariant to the gradient's scale.
    SeqMeanTokenSumNorm,
    /// Mean over all tokens of a rollout, then mean over rollouts: a rollout counts once,
    /// regardless of its number of calls.
    PerRolloutMean,
    /// Like `PerRolloutMean` but divided by the number of rows, as agent-lightning does (contrary
    /// to the name of its count): more rows per rollout make the gradient smaller.
    PerRolloutMeanOverRows,
}

impl Aggregation {
    pub const ALL: [Self; 6] = [
        Self::TokenMean,
        Self::SeqMeanTokenSum,
        Self::SeqMeanTokenMean,
        Self::SeqMeanTokenSumNorm,
        Self::PerRolloutMean,
        Self::PerRolloutMeanOverRows,
    ];
}

/// The divisor of [`Aggregation::SeqMeanTokenSumNorm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of tokens, or longest")]
pub enum AggregationConstant {
    /// This many tokens; in the paper the generation budget, the maximum length of a response.
    Tokens(f64),
    /// A length taken from the batch.
    Row(RowLength),
}

/// A length taken from the rows of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowLength {
    /// The longest row, including masked tokens: the width of a padded matrix.
    Longest,
}

impl AggregationConstant {
    /// The length of the longest row of an update, without the mean over rows: verl's default. The
    /// divisor differs between updates, and the gradient grows with the number of rows B: for rows
    /// of equal length it is B times that of the token mean, so with a norm of 1 at which to clip,
    /// nearly every update is clipped.
    pub const LONGEST: Self = Self::Row(RowLength::Longest);

    /// # Errors
    /// A number of tokens that is not positive.
    pub fn validate(self) -> Result<(), ConfigError> {
        match self {
            Self::Tokens(tokens) => positive("aggregation_constant", tokens),
            Self::Row(RowLength::Longest) => Ok(()),
        }
    }
}

/// The weight of each token with one rollout per row; see [`token_weights_by_rollout`].
pub fn token_weights(
    mode: Aggregation,
    constant: Option<AggregationConstant>,
    rows: &Rows,
) -> Vec<f64> {
    let rollouts: Vec<usize> = (0..rows.len()).collect();
    token_weights_by_rollout(mode, constant, rows, &rollouts)
}

/// The weight of each token; 0 outside the mask.
///
/// With N tokens inside the mask, n of them in the token's row and M in its rollout, B rows and R
/// rollouts that have any: `1/N`, `1/B`, `1/(B (n + 1e-8))`, `1/(B c)`, `1/(R M)`, `1/(B' M)` with
/// B' all rows. `constant` is the c of [`Aggregation::SeqMeanTokenSumNorm`] and is used only by it;
/// for [`AggregationConstant::LONGEST`] the weight is 1 / longest row.
///
/// # Panics
/// If there is not one rollout per row, or [`Aggregation::SeqMeanTokenSumNorm`] has no constant.
pub fn token_weights_by_rollout(
    mode: Aggregation,
    constant: Option<AggregationConstant>,
    rows: &Rows,
    rollouts: &[usize],
) -> Vec<f64> {
    assert_eq!(rollouts.len(), rows.len(), "one rollout per row");
    let counts = rows.active_lengths();
    let all = counts.iter().sum::<usize>() as f64;
    let filled = counts.iter().filter(|&&n| n > 0).count() as f64;
    let norm = constant.map(|constant| match constant {
        AggregationConstant::Tokens(c) => filled * c,
        AggregationConstant::Row(RowLength::Longest) => {
            rows.ranges().map(|range| range.len()).max().unwrap_or(0) as f64
        }
    });
    let mut per_rollout: HashMap<usize, usize> = HashMap::new();
    if matches!(mode, Aggregation::PerRolloutMean | Aggregation::PerRolloutMeanOverRows) {
        for (&rollout, &count) in rollouts.iter().zip(counts).filter(|(_, count)| **count > 0) {
            *per_rollout.entry(rollout).or_default() += count;
        }
    }
    let row_weight = |row: usize, count: usize| match mode {
        Aggregation::PerRolloutMean => {
            1.0 / (per_rollout[&rollouts[row]] * per_rollout.len()) as f64
        }
        Aggregation::PerRolloutMeanOverRows => {
            1.0 / (per_rollout[&rollouts[row]] * rows.len()) as f64
        }
        Aggregation::TokenMean => 1.0 / all,
        Aggregation::SeqMeanTokenSum => 1.0 / filled,
        Aggregation::SeqMeanTokenMean => 1.0 / (count as f64 + COUNT_EPSILON) / filled,
        Aggregation::SeqMeanTokenSumNorm => 1.0 / norm.expect("this aggregation needs a constant"),
    };
    spread(rows, counts, row_weight)
}

/// Weights that sum to 1/B per row, shared equally by its tokens; B includes rows without tokens.
/// For losses with one value per row ([`crate::loss::geo_mean`]).
pub fn row_mean_weights(rows: &Rows) -> Vec<f64> {
    let counts = rows.active_lengths();
    spread(rows, counts, |_, count| 1.0 / (count as f64 * rows.len() as f64))
}

/// Calls `row_weight` with row and count for each row that has tokens.
fn spread(rows: &Rows, counts: &[usize], row_weight: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let weight =
        |(row, &count): (usize, &usize)| if count == 0 { 0.0 } else { row_weight(row, count) };
    let per_row: Vec<f64> = counts.iter().enumerate().map(weight).collect();
    rows.spread(&per_row)
}

/// `Σ_t weight_t · value_t` over the tokens inside the mask.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn weighted_sum(values: &[f64], weights: &[f64], rows: &Rows) -> f64 {
    rows.assert_fits("values", values);
    rows.assert_fits("weights", weights);
    rows.active().map(|t| weights[t] * values[t]).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        // Rows with two, no and one active tokens.
        Rows::new(&[2, 1, 3], vec![true, true, false, true, false, false]).unwrap()
    }

    #[test]
    fn weights_follow_their_formulas() {
        let weights = |mode, constant| token_weights(mode, constant, &rows());
        let third = 1.0 / 3.0;
        assert_eq!(weights(Aggregation::TokenMean, None), [third, third, 0.0, third, 0.0, 0.0]);
        assert_eq!(weights(Aggregation::SeqMeanTokenSum, None), [0.5, 0.5, 0.0, 0.5, 0.0, 0.0]);
        let mean = weights(Aggregation::SeqMeanTokenMean, None);
        assert_eq!(mean[0], 0.5 / (2.0 + 1e-8));
        assert_eq!(mean[3], 0.5 / (1.0 + 1e-8));
        let norm = |constant| weights(Aggregation::SeqMeanTokenSumNorm, Some(constant));
        assert_eq!(norm(AggregationConstant::LONGEST), [third, third, 0.0, third, 0.0, 0.0]);
        // Two rows have tokens.
        let sixteenth = 1.0 / 16.0;
        let budget = norm(AggregationConstant::Tokens(8.0));
        assert_eq!(budget, [sixteenth, sixteenth, 0.0, sixteenth, 0.0, 0.0]);
        assert_eq!(row_mean_weights(&rows()), [1.0 / 6.0, 1.0 / 6.0, 0.0, third, 0.0, 0.0]);
    }

    /// Liu et al.: a constant divisor, whatever the rows of the update, and a mean over rows.
    #[test]
    fn the_budget_s_weight_depends_on_the_number_of_rows_only() {
        let weight = |lengths: &[usize]| {
            let constant = Some(AggregationConstant::Tokens(32.0));
            token_weights(Aggregation::SeqMeanTokenSumNorm, constant, &Rows::dense(lengths))[0]
        };
        assert_eq!(weight(&[1, 2]), 1.0 / 64.0);
        assert_eq!(weight(&[7, 31]), 1.0 / 64.0);
        assert_eq!(weight(&[1, 2, 3, 4]), 1.0 / 128.0);
    }

    #[test]
    fn a_rollout_counts_once_and_over_rows_less() {
        // Rollout 7 has rows of two, no and one tokens, rollout 8 one of one.
        let mask = vec![true, true, false, true, false, false, true];
        let rows = Rows::new(&[2, 1, 3, 1], mask).unwrap();
        let weights = |mode| token_weights_by_rollout(mode, None, &rows, &[7, 7, 7, 8]);
        let sixth = 1.0 / 6.0;
        let own = weights(Aggregation::PerRolloutMean);
        assert_eq!(own, [sixth, sixth, 0.0, sixth, 0.0, 0.0, 0.5]);
        let over_rows = weights(Aggregation::PerRolloutMeanOverRows);
        let twelfth = 1.0 / 12.0;
        assert_eq!(over_rows, [twelfth, twelfth, 0.0, twelfth, 0.0, 0.0, 0.25]);
        // The gradient of a rollout does not depend on how its tokens are split into rows.
        let merged = Rows::new(&[6, 1], rows.mask().to_vec()).unwrap();
        let weights = token_weights_by_rollout(Aggregation::PerRolloutMean, None, &merged, &[7, 8]);
        assert_eq!(weights, own);
    }

    #[test]
    fn a_batch_without_tokens_weighs_nothing() {
        let rows = Rows::new(&[2], vec![false, false]).unwrap();
        for mode in Aggregation::ALL {
            for constant in [AggregationConstant::Tokens(8.0), AggregationConstant::LONGEST] {
                assert_eq!(token_weights(mode, Some(constant), &rows), [0.0, 0.0]);
            }
        }
    }

    #[test]
    fn a_sum_ignores_what_is_outside_the_mask() {
        let values = [1.0, 2.0, f64::NAN, 3.0, f64::NAN, f64::INFINITY];
        let weights = token_weights(Aggregation::TokenMean, None, &rows());
        assert!((weighted_sum(&values, &weights, &rows()) - 2.0).abs() < 1e-15);
    }
}
