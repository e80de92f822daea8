//! CISPO: the ratio is clipped as a weight, so no token loses its gradient.
//!
//! MiniMax, *MiniMax-M1*, arXiv 2506.13585. The clipped ratio is a constant; the gradient flows
//! through the log-probability. With `clip_low` of 1 or more the lower bound is off, which is the
//! canonical form.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, open_clip_range};
use crate::loss::pieces::over_rows;
use crate::loss::rule::{Gradient, LossInput, LossRule, PolicyLoss, verl};
use crate::ratio::Ratio;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CispoConfig {
    /// The weight is at least `1 − clip_low`.
    pub clip_low: f64,
    /// The weight is at most `1 + clip_high`.
    pub clip_high: f64,
}

impl Default for CispoConfig {
    fn default() -> Self {
        Self { clip_low: 1.0, clip_high: 0.3 }
    }
}

impl LossRule for CispoConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(self, input)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        // A lower bound below 0 is allowed: it switches the lower clip off.
        open_clip_range(self.clip_low, self.clip_high)
    }

    fn gradient(&self) -> Gradient {
        Gradient::AtConstantRatio
    }

    fn of_verl(name: &str) -> Option<Self> {
        let (clip_low, clip_high) = (verl::CLIP_LOW, verl::CLIP_HIGH);
        (name == "cispo").then_some(Self { clip_low, clip_high })
    }
}

/// `L = −clip(ρ, 1 − low, 1 + high) A logp_new`, with the clipped ratio held constant.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(config: &CispoConfig, input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        for t in input.rows.active_in(row) {
            let ratio = Ratio::of(input.logp_new[t], input.logp_old[t]);
            let bounded = ratio.value.clamp(1.0 - config.clip_low, 1.0 + config.clip_high);
            let factor = input.weights[t] * -bounded * input.advantages[t];
            piece.loss += factor * input.logp_new[t];
            *piece.grad(t) = factor;
            piece.statistics.tokens += 1;
            piece.statistics.clipped += usize::from(bounded != ratio.value);
            piece.statistics.kl_sum -= ratio.log;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn a_clipped_token_keeps_its_gradient() {
        let rows = Rows::dense(&[2]);
        let result = loss(
            &CispoConfig::default(),
            &LossInput {
                rows: &rows,
                logp_new: &[-1.0 + 2.0_f64.ln(), -1.0 + 0.1_f64.ln()],
                logp_old: &[-1.0, -1.0],
                advantages: &[2.0, 2.0],
                weights: &[0.5, 0.5],
            },
        );
        assert_eq!(result.grad[0], -1.3);
        assert!((result.grad[1] + 0.1).abs() < 1e-12);
        assert_eq!(result.statistics.clipped, 1);
    }
}
