//! SAPO: a soft gate in place of the clip.
//!
//! *Soft Adaptive Policy Optimization*, arXiv 2511.20347. A sigmoid of the ratio's distance from 1
//! damps a token the more its ratio has moved, instead of cutting it off, and decays faster for
//! negative advantages, which spread mass over all other tokens.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive};
use crate::loss::pieces::over_rows;
use crate::loss::rule::{LossInput, LossRule, PolicyLoss};
use crate::ratio::Ratio;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SapoConfig {
    /// Temperature τ for advantages above 0.
    pub tau_positive: f64,
    /// Temperature τ for the others.
    pub tau_negative: f64,
}

impl Default for SapoConfig {
    fn default() -> Self {
        Self { tau_positive: 1.0, tau_negative: 1.05 }
    }
}

impl LossRule for SapoConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(self, input)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        positive("loss.tau_positive", self.tau_positive)?;
        positive("loss.tau_negative", self.tau_negative)
    }

    fn of_verl(name: &str) -> Option<Self> {
        (name == "sapo").then(Self::default)
    }
}

/// `L = −A f(ρ)` with `f(ρ) = σ(τ(ρ − 1)) · 4/τ`, whose slope at ρ = 1 is 1. Always aggregated as
/// the mean over rows of the mean over tokens. Nothing is clipped.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(config: &SapoConfig, input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        for t in input.rows.active_in(row) {
            let advantage = input.advantages[t];
            let ratio = Ratio::of(input.logp_new[t], input.logp_old[t]);
            let tau = if advantage > 0.0 { config.tau_positive } else { config.tau_negative };
            let gate = 1.0 / (1.0 + (-tau * (ratio.value - 1.0)).exp());
            let factor = -input.weights[t] * advantage;
            piece.loss += factor * gate * 4.0 / tau;
            // σ' = σ(1 − σ); the 1/τ of the gate cancels the τ of its argument.
            *piece.grad(t) = factor * 4.0 * gate * (1.0 - gate) * ratio.slope;
            piece.statistics.tokens += 1;
            piece.statistics.kl_sum -= ratio.log;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    fn at(ratio: f64, advantage: f64) -> (f64, f64) {
        let rows = Rows::dense(&[1]);
        let result = loss(
            &SapoConfig { tau_positive: 1.0, tau_negative: 2.0 },
            &LossInput {
                rows: &rows,
                logp_new: &[ratio.ln() - 1.0],
                logp_old: &[-1.0],
                advantages: &[advantage],
                weights: &[1.0],
            },
        );
        (result.loss, result.grad[0])
    }

    #[test]
    fn on_policy_the_slope_is_that_of_the_plain_surrogate() {
        assert_eq!(at(1.0, 1.5), (-1.5 * 2.0, -1.5));
        assert_eq!(at(1.0, -1.5), (1.5 * 1.0, 1.5));
    }

    #[test]
    fn far_from_the_old_policy_the_gradient_is_damped_but_not_zero() {
        // σ(2) for a ratio of 3 and τ = 1.
        let gate = 1.0 / (1.0 + (-2.0_f64).exp());
        let (loss, grad) = at(3.0, 1.0);
        assert!((loss + 4.0 * gate).abs() < 1e-12);
        assert!((grad + 4.0 * gate * (1.0 - gate) * 3.0).abs() < 1e-12);
        assert!(at(20.0, 1.0).1.abs() < 1e-5 && at(20.0, 1.0).1 < 0.0);
    }
}
