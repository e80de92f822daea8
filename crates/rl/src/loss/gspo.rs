//! GSPO: one ratio per row, the geometric mean of its tokens' ratios.
//!
//! Zheng et al., *Group Sequence Policy Optimization*, arXiv 2507.18071. The clip applies to whole
//! rows. This is the token variant: each token's ratio has the row's value, and the derivative of
//! its own log-probability only, so advantages may differ within a row. With equal advantages and
//! weights it is the derivative of the row's loss.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, clip_range};
use crate::loss::pieces::over_rows;
use crate::loss::rule::{Gradient, LossInput, LossRule, PolicyLoss, verl};

/// Row log-ratios above this are clamped, as in verl.
const LOG_RATIO_LIMIT: f64 = 10.0;

/// Defaults to the paper's ranges, which are far narrower than those of token ratios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GspoConfig {
    /// The row's ratio is clipped below at `1 − clip_low`.
    pub clip_low: f64,
    /// The row's ratio is clipped above at `1 + clip_high`.
    pub clip_high: f64,
}

impl Default for GspoConfig {
    fn default() -> Self {
        Self { clip_low: 3e-4, clip_high: 4e-4 }
    }
}

impl LossRule for GspoConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(self, input)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        clip_range(self.clip_low, self.clip_high)
    }

    fn gradient(&self) -> Gradient {
        Gradient::OfEqualAdvantages
    }

    fn of_verl(name: &str) -> Option<Self> {
        let (clip_low, clip_high) = (verl::CLIP_LOW, verl::CLIP_HIGH);
        (name == "gspo").then_some(Self { clip_low, clip_high })
    }
}

/// `s = exp(mean_t (logp_new − logp_old))`, `L = max(−As, −A clip(s, 1 − low, 1 + high))` per
/// token of the row.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(config: &GspoConfig, input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        let log_sum: f64 =
            input.rows.active_in(row).map(|t| input.logp_new[t] - input.logp_old[t]).sum();
        let tokens = input.rows.active_length(row);
        let log = log_sum / tokens as f64;
        let clamped = log > LOG_RATIO_LIMIT;
        let ratio = if clamped { LOG_RATIO_LIMIT.exp() } else { log.exp() };
        let slope = if clamped { 0.0 } else { ratio };
        let bounded_ratio = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high);
        piece.statistics.tokens += tokens;
        piece.statistics.kl_sum -= log_sum;
        for t in input.rows.active_in(row) {
            let advantage = input.advantages[t];
            let (plain, bounded) = (-advantage * ratio, -advantage * bounded_ratio);
            if bounded > plain {
                piece.loss += input.weights[t] * bounded;
                piece.statistics.clipped += 1;
            } else {
                piece.loss += input.weights[t] * plain;
                *piece.grad(t) = input.weights[t] * -advantage * slope;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_clip_applies_to_whole_rows() {
        let rows = Rows::dense(&[2, 2]);
        let result = loss(
            &GspoConfig { clip_low: 0.1, clip_high: 0.1 },
            &LossInput {
                rows: &rows,
                // Mean log-ratios ln 2 and 0, from widely differing tokens.
                logp_new: &[2.0 * 2.0_f64.ln() - 1.0, -1.0, 0.0, -2.0],
                logp_old: &[-1.0; 4],
                advantages: &[1.0; 4],
                weights: &[0.25; 4],
            },
        );
        assert_eq!(result.grad, [0.0, 0.0, -0.25, -0.25]);
        assert_eq!(result.statistics.clipped, 2);
        assert!((result.loss + 0.5 * (1.1 + 1.0)).abs() < 1e-12);
    }
}
