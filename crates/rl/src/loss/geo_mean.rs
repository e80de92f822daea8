//! GMPO: the geometric mean of clipped token ratios, one loss per row.
//!
//! Zhao et al., *Geometric-Mean Policy Optimization*, arXiv 2507.20673. Log-ratios are clipped per
//! token, in the direction of the advantage, and then averaged over the row.

use serde::{Deserialize, Serialize};

use crate::aggregate::COUNT_EPSILON;
use crate::error::{ConfigError, open_clip_range};
use crate::loss::pieces::over_rows;
use crate::loss::rule::{LossInput, LossRule, PolicyLoss, verl};
use crate::ratio::LOG_RATIO_LIMIT;

/// The paper's range is `(e^−0.4, e^0.4)`: wide, since a single outlier cannot dominate a geometric
/// mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoMeanConfig {
    /// With a negative advantage, a log-ratio is clipped below at `−clip_low`.
    pub clip_low: f64,
    /// With a positive advantage, a log-ratio is clipped above at `clip_high`.
    pub clip_high: f64,
}

impl Default for GeoMeanConfig {
    fn default() -> Self {
        Self { clip_low: 0.4, clip_high: 0.4 }
    }
}

impl LossRule for GeoMeanConfig {
    fn loss(&self, input: &LossInput) -> PolicyLoss {
        loss(self, input)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        open_clip_range(self.clip_low, self.clip_high)
    }

    fn of_verl(name: &str) -> Option<Self> {
        let (clip_low, clip_high) = (verl::CLIP_LOW, verl::CLIP_HIGH);
        (name == "geo_mean").then_some(Self { clip_low, clip_high })
    }
}

/// `L = −Ā exp(mean_t x_t)` per row, with Ā the mean of its advantages and x the clipped log-ratio;
/// both means divide by `n + 1e-8`. A row's weight is the sum of its tokens' weights:
/// [`crate::aggregate::row_mean_weights`] give the paper's mean over rows.
///
/// A log-ratio beyond ±20 is clamped; verl does not clamp and overflows.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(config: &GeoMeanConfig, input: &LossInput) -> PolicyLoss {
    over_rows(input, |row, piece| {
        let count = input.rows.active_length(row) as f64 + COUNT_EPSILON;
        let (mut log, mut advantage, mut weight) = (0.0, 0.0, 0.0);
        for t in input.rows.active_in(row) {
            let raw = input.logp_new[t] - input.logp_old[t];
            let (x, slope) = clipped(config, raw, input.advantages[t]);
            log += x / count;
            advantage += input.advantages[t] / count;
            weight += input.weights[t];
            // Multiplied below by the row's factor.
            *piece.grad(t) = slope / count;
            let outside = raw < -config.clip_low || raw > config.clip_high;
            piece.statistics.clipped += usize::from(outside && input.advantages[t] > 0.0);
            piece.statistics.clipped_lower += usize::from(outside && input.advantages[t] < 0.0);
            piece.statistics.tokens += 1;
            piece.statistics.kl_sum -= raw;
        }
        let row_loss = -weight * advantage * log.exp();
        piece.loss += row_loss;
        for t in input.rows.active_in(row) {
            *piece.grad(t) *= row_loss;
        }
    })
}

/// A token's clipped log-ratio and its derivative; 0 for an advantage of 0.
fn clipped(config: &GeoMeanConfig, raw: f64, advantage: f64) -> (f64, f64) {
    let x = raw.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    // Comparisons rather than min and max, which would drop a NaN.
    let bounded = if advantage == 0.0 {
        0.0
    } else if advantage > 0.0 && x > config.clip_high {
        config.clip_high
    } else if advantage < 0.0 && x < -config.clip_low {
        -config.clip_low
    } else {
        x
    };
    (bounded, if bounded == raw && advantage != 0.0 { 1.0 } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn log_ratios_are_clipped_in_the_direction_of_the_advantage() {
        let config = GeoMeanConfig::default();
        assert_eq!(clipped(&config, 0.9, 1.0), (0.4, 0.0));
        assert_eq!(clipped(&config, -0.9, 1.0), (-0.9, 1.0));
        assert_eq!(clipped(&config, 0.9, -1.0), (0.9, 1.0));
        assert_eq!(clipped(&config, -0.9, -1.0), (-0.4, 0.0));
        assert_eq!(clipped(&config, 0.9, 0.0), (0.0, 0.0));
        assert_eq!(clipped(&config, -50.0, 1.0), (-20.0, 0.0));
    }

    #[test]
    fn a_row_is_one_loss() {
        let rows = Rows::dense(&[2]);
        let result = loss(
            &GeoMeanConfig::default(),
            &LossInput {
                rows: &rows,
                logp_new: &[-0.8, -1.0],
                logp_old: &[-1.0, -1.0],
                advantages: &[2.0, 2.0],
                weights: &[0.5, 0.5],
            },
        );
        let expected = -2.0 * 0.1_f64.exp();
        assert!((result.loss - expected).abs() < 1e-7);
        assert!((result.grad[0] - expected / 2.0).abs() < 1e-7);
        assert!((result.grad[1] - expected / 2.0).abs() < 1e-7);
    }
}
