//! REINFORCE with importance weights: the score function, weighted by the ratio.
//!
//! Williams 1992; the weight corrects for policy changes since sampling. The ratio is a constant:
//! the gradient flows through the log-probability, and equals that of the unclipped surrogate
//! `−Aρ`. Without the weight it is [`crate::loss::gpg`]; with a clipped one [`crate::loss::cispo`].

use serde::{Deserialize, Serialize};

use crate::loss::pieces::over_rows;
use crate::loss::rule::{Gradient, LossInput, LossRule, PolicyLoss};
use crate::ratio::Ratio;

/// The loss has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReinforceConfig {}

impl LossRule for ReinforceConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(input)
    }

    fn gradient(&self) -> Gradient {
        Gradient::AtConstantRatio
    }
}

/// `L = −ρ A logp_new`, with ρ held constant.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        for t in input.rows.active_in(row) {
            let ratio = Ratio::of(input.logp_new[t], input.logp_old[t]);
            let factor = -input.weights[t] * ratio.value * input.advantages[t];
            piece.loss += factor * input.logp_new[t];
            *piece.grad(t) = factor;
            piece.statistics.tokens += 1;
            piece.statistics.kl_sum -= ratio.log;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;
    use crate::loss::gpg;

    #[test]
    fn the_ratio_weighs_the_policy_gradient() {
        let rows = Rows::dense(&[2]);
        let input = LossInput {
            rows: &rows,
            logp_new: &[-1.0, -1.0],
            logp_old: &[-1.0 - 2.0_f64.ln(), -1.0],
            advantages: &[3.0, -1.0],
            weights: &[0.5, 0.25],
        };
        let result = loss(&input);
        assert!((result.grad[0] + 3.0).abs() < 1e-12 && (result.loss - 2.75).abs() < 1e-12);
        assert_eq!(result.grad[1], 0.25);
        // On-policy it is the plain policy gradient.
        let on_policy = LossInput { logp_old: input.logp_new, ..input };
        assert_eq!(loss(&on_policy).grad, gpg::loss(&on_policy).grad);
    }
}
