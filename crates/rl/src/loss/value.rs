//! The loss of a critic: clipped squared error.
//!
//! As in PPO: a prediction that differs from the old one by more than the range gets no further
//! gradient.

use serde::{Deserialize, Serialize};

use crate::aggregate::COUNT_EPSILON;
use crate::error::{ConfigError, not_negative};
use crate::rows::Rows;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueConfig {
    /// Predictions are clipped to the old value plus and minus this.
    pub clip: f64,
}

impl Default for ValueConfig {
    fn default() -> Self {
        Self { clip: 0.5 }
    }
}

impl ValueConfig {
    /// # Errors
    /// If the range is negative or not finite.
    pub fn validate(&self) -> Result<(), ConfigError> {
        not_negative("value.clip", self.clip)
    }
}

/// Input of the critic loss: flat arrays with one entry per token of the rows.
#[derive(Debug, Clone, Copy)]
pub struct ValueInput<'a> {
    pub rows: &'a Rows,
    /// The critic's predictions, which are differentiated.
    pub values_new: &'a [f64],
    /// Its predictions before the update.
    pub values_old: &'a [f64],
    /// The prediction targets.
    pub returns: &'a [f64],
    /// The weight of each token in the whole batch.
    pub weights: &'a [f64],
}

/// The loss of a batch or of part of it; all fields are sums and additive over parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValueLoss {
    pub loss: f64,
    /// d loss / d values_new, one per token; 0 outside the mask.
    pub grad: Vec<f64>,
    pub tokens: usize,
    /// Tokens whose clipped error was the larger one.
    pub clipped: usize,
}

impl ValueLoss {
    /// Share of clipped tokens.
    pub fn clip_fraction(&self) -> f64 {
        self.clipped as f64 / (self.tokens as f64 + COUNT_EPSILON)
    }
}

/// `L = ½ max((v − R)², (clip(v, v_old − ε, v_old + ε) − R)²)`.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn loss(config: &ValueConfig, input: &ValueInput) -> ValueLoss {
    input.rows.assert_fits("values_new", input.values_new);
    input.rows.assert_fits("values_old", input.values_old);
    input.rows.assert_fits("returns", input.returns);
    input.rows.assert_fits("weights", input.weights);
    let mut total = ValueLoss { grad: vec![0.0; input.rows.tokens()], ..ValueLoss::default() };
    for t in input.rows.active() {
        let (value, old) = (input.values_new[t], input.values_old[t]);
        let error = value - input.returns[t];
        // max/min rather than clamp, which panics if a bound is NaN.
        let bounded = value.max(old - config.clip).min(old + config.clip) - input.returns[t];
        let (square, slope) = if bounded * bounded > error * error {
            total.clipped += 1;
            (bounded * bounded, 0.0)
        } else {
            (error * error, error)
        };
        total.loss += input.weights[t] * 0.5 * square;
        total.grad[t] = input.weights[t] * slope;
        total.tokens += 1;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_error_counts() {
        let rows = Rows::new(&[4], vec![true, true, false, true]).unwrap();
        let result = loss(
            &ValueConfig::default(),
            &ValueInput {
                rows: &rows,
                // Within range; moved towards the return beyond range; outside the mask; moved
                // away from the return beyond range.
                values_new: &[0.25, 1.0, f64::NAN, 1.0],
                values_old: &[0.0, 0.0, 0.0, 0.0],
                returns: &[1.0, 1.0, 1.0, -1.0],
                weights: &[1.0; 4],
            },
        );
        assert_eq!(result.loss, 0.5 * (0.75 * 0.75 + 0.5 * 0.5 + 4.0));
        assert_eq!(result.grad, [-0.75, 0.0, 0.0, 2.0]);
        assert_eq!((result.tokens, result.clipped), (3, 1));
    }
}
