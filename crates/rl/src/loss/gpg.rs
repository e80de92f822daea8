//! GPG: the plain policy gradient, without ratio and clip.
//!
//! Chu et al., *GPG: A Simple and Strong Reinforcement Learning Baseline*, arXiv 2504.02546.
//! Sufficient for one update per batch of samples.
//!
//! Samples of groups without variance (all right, or all wrong) have no gradient but count in the
//! mean of the loss, so the more of them, the smaller the step. The paper multiplies advantages by
//! `α = B / (B − M)` for B samples, M of them in such groups: the mean over the other samples. Here a
//! sample is a row; B and M are those of a step, before it is split into mini-batches. α does not
//! scale a KL term or an entropy bonus.
//!
//! Comparison group: that of the estimator; the paper's advantage is GRPO's without the division by
//! the deviation.
//!
//! verl's loss of this name has no α (`rescale = false`); its estimator has `B / #(score ≠ 0)`, which
//! is another number.

use serde::{Deserialize, Serialize};

use crate::loss::pieces::over_rows;
use crate::loss::rule::{LossInput, LossRule, PolicyLoss};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpgConfig {
    /// Whether advantages are multiplied by α.
    pub rescale: bool,
}

impl Default for GpgConfig {
    fn default() -> Self {
        Self { rescale: true }
    }
}

impl LossRule for GpgConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(input)
    }

    /// `α = B / (B − M)`; 1 if no sample has a gradient.
    fn advantage_factor(&self, samples: usize, without_gradient: usize) -> f64 {
        let with_gradient = samples.saturating_sub(without_gradient);
        if self.rescale && with_gradient > 0 { samples as f64 / with_gradient as f64 } else { 1.0 }
    }

    fn of_verl(name: &str) -> Option<Self> {
        (name == "gpg").then_some(Self { rescale: false })
    }
}

/// `L = −A logp_new`.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        for t in input.rows.active_in(row) {
            let factor = -input.weights[t] * input.advantages[t];
            piece.loss += factor * input.logp_new[t];
            *piece.grad(t) = factor;
            piece.statistics.tokens += 1;
            piece.statistics.kl_sum += input.logp_old[t] - input.logp_new[t];
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_loss_is_linear_in_the_log_probability() {
        let rows = Rows::dense(&[2]);
        let result = loss(&LossInput {
            rows: &rows,
            logp_new: &[-1.0, -3.0],
            logp_old: &[-1.5, -3.0],
            advantages: &[2.0, -1.0],
            weights: &[0.5, 0.25],
        });
        assert_eq!(result.loss, 1.0 - 0.75);
        assert_eq!(result.grad, [-1.0, 0.25]);
        assert_eq!(result.statistics.kl_sum, -0.5);
    }

    #[test]
    fn the_factor_makes_up_for_samples_without_a_gradient() {
        let paper = GpgConfig::default();
        assert_eq!(paper.advantage_factor(8, 6), 4.0);
        assert_eq!(paper.advantage_factor(8, 0), 1.0);
        assert_eq!(paper.advantage_factor(8, 8), 1.0);
        assert_eq!(paper.advantage_factor(0, 0), 1.0);
        assert_eq!(GpgConfig { rescale: false }.advantage_factor(8, 6), 1.0);
        assert_eq!(GpgConfig::of_verl("gpg"), Some(GpgConfig { rescale: false }));
    }
}
