//! Estimators of the Kullback-Leibler divergence from single samples.
//!
//! With `d = logp − logp_ref` of a token drawn from the policy, the divergence is estimated
//! by `k1 = d` (unbiased, high variance), `k2 = d²/2` (biased, its gradient is the right one),
//! `k3 = exp(−d) − 1 + d` (unbiased, never negative) and `|d|` (Schulman, *Approximating KL
//! divergence*, 2020). Each comes with its derivative with respect to `logp`, so that a KL
//! term is one more summand of the loss and of its gradient.

use serde::{Deserialize, Serialize};

use crate::Rows;
use crate::config::{ConfigError, not_negative};

/// Log-ratios beyond this are clamped before exponentiation, as in verl.
pub(crate) const LOG_RATIO_LIMIT: f64 = 20.0;
/// Values of k3 beyond this are clamped, as in verl.
const K3_LIMIT: f64 = 10.0;

/// An estimator; verl's names (`kl`, `mse`, `low_var_kl`) are understood too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    #[serde(alias = "kl")]
    K1,
    #[serde(alias = "mse")]
    K2,
    #[default]
    #[serde(alias = "low_var_kl")]
    K3,
    Abs,
}

impl KlEstimator {
    /// The estimate at one token and its derivative with respect to `logp`.
    ///
    /// k3 clamps `−d` to ±20 and its value to ±10; where a clamp acts the derivative is 0.
    pub fn estimate(self, logp: f64, logp_ref: f64) -> (f64, f64) {
        let d = logp - logp_ref;
        match self {
            Self::K1 => (d, 1.0),
            Self::K2 => (0.5 * d * d, d),
            Self::Abs => (d.abs(), if d == 0.0 { 0.0 } else { d.signum() }),
            Self::K3 => {
                let x = (-d).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
                let value = x.exp() - x - 1.0;
                let clamped = x != -d || value > K3_LIMIT;
                (value.clamp(0.0, K3_LIMIT), if clamped { 0.0 } else { 1.0 - x.exp() })
            }
        }
    }
}

/// A KL term in the loss: off by default, as in the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlConfig {
    pub estimator: KlEstimator,
    /// Factor β of the term; 0 is off and needs no reference model.
    pub coefficient: f64,
}

impl Default for KlConfig {
    fn default() -> Self {
        Self { estimator: KlEstimator::K3, coefficient: 0.0 }
    }
}

impl KlConfig {
    /// Whether reference log-probabilities are needed.
    pub fn is_on(&self) -> bool {
        self.coefficient != 0.0
    }

    /// # Errors
    /// If the coefficient is negative or not a number.
    pub fn validate(&self) -> Result<(), ConfigError> {
        not_negative("kl.coefficient", self.coefficient)
    }
}

/// A KL term of a batch or of a part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct KlTerm {
    /// `β Σ_t weight_t · kl_t`.
    pub loss: f64,
    /// d loss / d logp, per token; 0 outside the mask.
    pub grad: Vec<f64>,
    /// Sum of the estimates, without β and weights, over `tokens` tokens: parts add up.
    pub sum: f64,
    pub tokens: usize,
}

/// The KL term of a batch; arrays are flat, one entry per token.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn term(
    config: &KlConfig,
    logp: &[f64],
    logp_ref: &[f64],
    weights: &[f64],
    rows: &Rows,
) -> KlTerm {
    rows.assert_fits("logp", logp);
    rows.assert_fits("logp_ref", logp_ref);
    rows.assert_fits("weights", weights);
    let mut term = KlTerm { loss: 0.0, grad: vec![0.0; rows.tokens()], sum: 0.0, tokens: 0 };
    for t in rows.active() {
        let (value, slope) = config.estimator.estimate(logp[t], logp_ref[t]);
        let weight = config.coefficient * weights[t];
        term.loss += weight * value;
        term.grad[t] = weight * slope;
        term.sum += value;
        term.tokens += 1;
    }
    term
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KlEstimator; 4] =
        [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3, KlEstimator::Abs];

    #[test]
    fn equal_policies_have_no_divergence() {
        for estimator in ALL {
            assert_eq!(estimator.estimate(-1.5, -1.5).0, 0.0);
        }
    }

    #[test]
    fn k3_is_clamped_with_a_flat_slope() {
        assert_eq!(KlEstimator::K3.estimate(-100.0, 0.0), (10.0, 0.0));
        assert_eq!(KlEstimator::K3.estimate(0.0, -100.0), (10.0, 0.0));
        assert!(KlEstimator::K3.estimate(f64::NAN, 0.0).0.is_nan());
    }

    #[test]
    fn slopes_are_the_derivatives() {
        let h = 1e-6;
        for estimator in ALL {
            for logp in [-3.0, -1.2, -0.4] {
                let value = |x| estimator.estimate(x, -1.0).0;
                let numeric = (value(logp + h) - value(logp - h)) / (2.0 * h);
                let (_, slope) = estimator.estimate(logp, -1.0);
                assert!((slope - numeric).abs() < 1e-6, "{estimator:?} at {logp}");
            }
        }
    }

    #[test]
    fn the_term_is_weighted_and_masked() {
        let rows = Rows::new(&[2, 1], vec![true, false, true]).unwrap();
        let config = KlConfig { estimator: KlEstimator::K1, coefficient: 0.5 };
        let logp = [-1.0, f64::NAN, -2.0];
        let term = term(&config, &logp, &[-2.0, 0.0, -2.5], &[0.5, 0.0, 0.25], &rows);
        assert_eq!(term.loss, 0.5 * (0.5 + 0.25 * 0.5));
        assert_eq!(term.grad, [0.25, 0.0, 0.125]);
        assert_eq!((term.sum, term.tokens), (1.5, 2));
    }
}
