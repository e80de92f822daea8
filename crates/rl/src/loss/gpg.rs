//! GPG: the plain policy gradient, without ratio and clip.
//!
//! Chu et al., *GPG: A Simple and Strong Reinforcement Learning Baseline*, arXiv 2504.02546.
//! Sufficient for one update per batch of samples.

use serde::{Deserialize, Serialize};

use crate::loss::pieces::over_rows;
use crate::loss::rule::{LossInput, LossRule, PolicyLoss};

/// The loss has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpgConfig {}

impl LossRule for GpgConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(input)
    }

    fn of_verl(name: &str) -> Option<Self> {
        (name == "gpg").then_some(Self {})
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
}
