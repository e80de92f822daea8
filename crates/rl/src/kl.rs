//! Estimators of the Kullback-Leibler divergence from single samples.
//!
//! With `d = logp − logp_ref` of a token drawn from the policy, the divergence is estimated by
//! `k1 = d` (unbiased, high variance), `k2 = d²/2` (biased, but with the correct gradient),
//! `k3 = exp(−d) − 1 + d` (unbiased, never negative) and `|d|` (Schulman, *Approximating KL
//! divergence*, 2020). Each comes with its derivative with respect to `logp`, so that a KL term
//! adds to the loss and its gradient. `k1+` and `k3+` have the value of k1 and k3 but the
//! derivative of k2 (straight-through).
//!
//! A penalty is applied in the loss or, before advantages are estimated, in the reward. Its factor
//! is fixed or adapts to a target ([`KlController`]).

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, not_negative, positive};
use crate::ratio::{LOG_RATIO_LIMIT, Ratio};
use crate::rows::Rows;

/// Values of k3 beyond this are clamped, as in verl.
const K3_LIMIT: f64 = 10.0;

/// A KL estimator; verl's names (`kl`, `mse`, `low_var_kl`) are aliases.
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
    #[serde(rename = "k1+", alias = "kl+")]
    K1StraightThrough,
    #[serde(rename = "k3+", alias = "low_var_kl+")]
    K3StraightThrough,
}

impl KlEstimator {
    /// The estimate at one token and its derivative with respect to `logp`.
    ///
    /// k3 clamps `−d` to ±20 and its value to at most 10; where a clamp is active the derivative is
    /// 0.
    pub fn estimate(self, logp: f64, logp_ref: f64) -> (f64, f64) {
        let d = logp - logp_ref;
        match self {
            Self::K1StraightThrough => (d, d),
            Self::K3StraightThrough => (Self::K3.estimate(logp, logp_ref).0, d),
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

/// Where the penalty is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlPlacement {
    /// As a term of the loss.
    #[default]
    Loss,
    /// Subtracted from the reward of each token before advantages are estimated.
    Reward,
}

/// A KL penalty: off by default, as in the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlConfig {
    pub estimator: KlEstimator,
    /// Factor β of the penalty; 0 is off and needs no reference model.
    pub coefficient: f64,
    pub placement: KlPlacement,
    /// Whether k3 is multiplied by the ratio to the sampling policy, which makes the term's
    /// gradient unbiased off-policy too (DeepSeek-V3.2, arXiv 2512.02556).
    pub unbiased: bool,
    /// Adapts the factor to a target, starting at `coefficient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveKl>,
}

impl Default for KlConfig {
    fn default() -> Self {
        Self {
            estimator: KlEstimator::K3,
            coefficient: 0.0,
            placement: KlPlacement::Loss,
            unbiased: false,
            adaptive: None,
        }
    }
}

impl KlConfig {
    /// Whether reference log-probabilities are needed.
    pub fn is_on(&self) -> bool {
        self.coefficient != 0.0
    }

    /// Whether a term is added to the loss.
    pub fn is_in_loss(&self) -> bool {
        self.is_on() && self.placement == KlPlacement::Loss
    }

    /// Whether a penalty is subtracted from the rewards.
    pub fn is_in_reward(&self) -> bool {
        self.is_on() && self.placement == KlPlacement::Reward
    }

    /// The controller at the start of a run.
    pub fn controller(&self) -> KlController {
        KlController { coefficient: self.coefficient }
    }

    /// # Errors
    /// An invalid value, or an invalid adaptive or unbiased term.
    pub fn validate(&self) -> Result<(), ConfigError> {
        not_negative("kl.coefficient", self.coefficient)?;
        if self.unbiased {
            let why = if self.estimator != KlEstimator::K3 {
                "it weighs k3, so the estimator must be k3"
            } else if self.placement == KlPlacement::Reward {
                "it is the ratio to the policy that acted, which is 1 where rewards are given: \
                 put the term in the loss"
            } else {
                return self.validate_adaptive();
            };
            return Err(ConfigError::combination("kl.unbiased", why));
        }
        self.validate_adaptive()
    }

    fn validate_adaptive(&self) -> Result<(), ConfigError> {
        let Some(adaptive) = &self.adaptive else { return Ok(()) };
        positive("kl.adaptive.target", adaptive.target)?;
        positive("kl.adaptive.horizon", adaptive.horizon)?;
        if self.coefficient == 0.0 {
            let why = "the factor grows in proportion, so it cannot leave 0: set kl.coefficient";
            return Err(ConfigError::combination("kl.adaptive", why));
        }
        Ok(())
    }

    /// The penalty `β kl_t` to subtract from each token's reward; 0 outside the mask.
    ///
    /// # Panics
    /// If an array does not have one entry per token.
    pub fn penalties(&self, beta: f64, logp: &[f64], logp_ref: &[f64], rows: &Rows) -> Vec<f64> {
        rows.assert_fits("logp", logp);
        rows.assert_fits("logp_ref", logp_ref);
        let mut penalties = vec![0.0; rows.tokens()];
        for t in rows.active() {
            penalties[t] = beta * self.estimator.estimate(logp[t], logp_ref[t]).0;
        }
        penalties
    }
}

/// Settings of an adaptive factor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveKl {
    /// Target divergence in nats per token.
    pub target: f64,
    /// Number of rollouts over which the factor can change by a factor of about e^0.2.
    pub horizon: f64,
}

impl Default for AdaptiveKl {
    fn default() -> Self {
        Self { target: 0.1, horizon: 10_000.0 }
    }
}

/// The factor β of a run; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KlController {
    pub coefficient: f64,
}

/// The factor at most halves or doubles in one step.
const STEP_BOUNDS: (f64, f64) = (0.5, 2.0);

impl KlController {
    /// `β ← β (1 + clip(KL/target − 1, ±0.2) · n/horizon)` after a step of `rollouts` rollouts with
    /// mean divergence `kl` (Ziegler et al., arXiv 1909.08593). A fixed factor is unchanged, as is
    /// any factor if `kl` is NaN.
    ///
    /// The formula is made for n far below the horizon; from five times the horizon on it would
    /// turn β negative. The multiplier is therefore bounded to [0.5, 2].
    pub fn update(&mut self, config: &KlConfig, kl: f64, rollouts: usize) {
        let Some(adaptive) = &config.adaptive else { return };
        if !kl.is_nan() {
            let error = (kl / adaptive.target - 1.0).clamp(-0.2, 0.2);
            let multiplier = 1.0 + error * rollouts as f64 / adaptive.horizon;
            self.coefficient *= multiplier.clamp(STEP_BOUNDS.0, STEP_BOUNDS.1);
        }
    }
}

/// Input of a KL term: flat arrays with one entry per token of the rows.
#[derive(Debug, Clone, Copy)]
pub struct KlInput<'a> {
    pub rows: &'a Rows,
    /// Log-probabilities under the policy that is differentiated.
    pub logp: &'a [f64],
    /// Log-probabilities under the policy before the update, for the unbiased term.
    pub logp_old: &'a [f64],
    /// Log-probabilities under the reference model.
    pub logp_ref: &'a [f64],
    /// The weight of each token in the whole batch.
    pub weights: &'a [f64],
}

/// A KL term of a batch or of part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KlTerm {
    /// `β Σ_t weight_t · kl_t`.
    pub loss: f64,
    /// d loss / d logp, per token; 0 outside the mask.
    pub grad: Vec<f64>,
    /// Sum of the estimates over `tokens` tokens, without β and weights; additive over parts.
    pub sum: f64,
    pub tokens: usize,
}

/// The KL term of a batch with factor `beta`.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn term(config: &KlConfig, beta: f64, input: &KlInput) -> KlTerm {
    let rows = input.rows;
    rows.assert_fits("logp", input.logp);
    rows.assert_fits("logp_old", input.logp_old);
    rows.assert_fits("logp_ref", input.logp_ref);
    rows.assert_fits("weights", input.weights);
    let mut term = KlTerm { grad: vec![0.0; rows.tokens()], ..KlTerm::default() };
    for t in rows.active() {
        let (mut value, mut slope) = config.estimator.estimate(input.logp[t], input.logp_ref[t]);
        term.sum += value;
        if config.unbiased {
            let ratio = Ratio::of(input.logp[t], input.logp_old[t]);
            (value, slope) = (ratio.value * value, ratio.slope * value + ratio.value * slope);
        }
        let weight = beta * input.weights[t];
        term.loss += weight * value;
        term.grad[t] = weight * slope;
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
    fn straight_through_takes_the_slope_of_k2() {
        for (plus, value) in [
            (KlEstimator::K1StraightThrough, KlEstimator::K1),
            (KlEstimator::K3StraightThrough, KlEstimator::K3),
        ] {
            for logp in [-3.0, -0.4] {
                let slope = KlEstimator::K2.estimate(logp, -1.0).1;
                assert_eq!(plus.estimate(logp, -1.0), (value.estimate(logp, -1.0).0, slope));
            }
        }
        let read = |name: &str| serde_json::from_value::<KlEstimator>(name.into()).unwrap();
        assert_eq!(read("k3+"), KlEstimator::K3StraightThrough);
        assert_eq!(read("low_var_kl"), KlEstimator::K3);
    }

    fn one<'a>(rows: &'a Rows, logp: &'a [f64]) -> KlInput<'a> {
        KlInput { rows, logp, logp_old: &[-1.1], logp_ref: &[-1.4], weights: &[0.5] }
    }

    #[test]
    fn the_unbiased_gradient_is_the_ratio_times_the_difference() {
        // (ρ k3)' = ρ (e^−d − 1 + d) + ρ (1 − e^−d) = ρ d.
        let rows = Rows::dense(&[1]);
        let config = KlConfig { unbiased: true, ..KlConfig::default() };
        let at = |logp: f64| term(&config, 0.1, &one(&rows, &[logp]));
        let expected = 0.1 * 0.5 * (0.8_f64).exp() * 1.1;
        assert!((at(-0.3).grad[0] - expected).abs() < 1e-15);
        let numeric = (at(-0.3 + 1e-6).loss - at(-0.3 - 1e-6).loss) / 2e-6;
        assert!((numeric - expected).abs() < 1e-8);
        assert_eq!(at(-0.3).sum, KlEstimator::K3.estimate(-0.3, -1.4).0, "the sum is k3's");
    }

    #[test]
    fn the_controller_moves_towards_its_target_by_bounded_steps() {
        let config = KlConfig {
            coefficient: 0.5,
            adaptive: Some(AdaptiveKl { target: 0.1, horizon: 1000.0 }),
            ..KlConfig::default()
        };
        let after = |kl| {
            let mut controller = config.controller();
            controller.update(&config, kl, 100);
            controller.coefficient
        };
        assert_eq!(after(0.11), 0.5 * (1.0 + (0.11 / 0.1 - 1.0) * 0.1));
        assert_eq!(after(7.0), 0.5 * (1.0 + 0.2 * 100.0 / 1000.0));
        assert_eq!(after(0.0), 0.5 * (1.0 - 0.2 * 100.0 / 1000.0));
        assert_eq!(after(f64::NAN), 0.5);
        let mut fixed = KlController { coefficient: 0.5 };
        fixed.update(&KlConfig { adaptive: None, ..config.clone() }, 7.0, 100);
        assert_eq!(fixed.coefficient, 0.5);
    }

    #[test]
    fn the_controller_stays_positive_beyond_its_horizon() {
        let config = KlConfig {
            coefficient: 0.5,
            adaptive: Some(AdaptiveKl { target: 0.1, horizon: 20.0 }),
            ..KlConfig::default()
        };
        let after = |kl, rollouts| {
            let mut controller = config.controller();
            controller.update(&config, kl, rollouts);
            controller.coefficient
        };
        // Within the bounds the formula holds: 1 ± 0.2 · 40 / 20.
        assert_eq!(after(0.0, 40), 0.5 * (1.0 - 0.2 * 40.0 / 20.0));
        assert_eq!(after(7.0, 40), 0.5 * (1.0 + 0.2 * 40.0 / 20.0));
        // 1 − 0.2 · 128 / 20 is negative.
        assert_eq!(after(0.0, 128), 0.25);
        assert_eq!(after(7.0, 128), 1.0);
        let mut controller = config.controller();
        (0..100).for_each(|_| controller.update(&config, 0.0, 1000));
        assert!(controller.coefficient > 0.0);
    }

    #[test]
    fn invalid_terms_are_rejected() {
        let key = |config: KlConfig| config.validate().unwrap_err().key();
        let unbiased = KlConfig { unbiased: true, ..KlConfig::default() };
        assert_eq!(unbiased.validate(), Ok(()));
        assert_eq!(key(KlConfig { estimator: KlEstimator::K1, ..unbiased.clone() }), "kl.unbiased");
        assert_eq!(key(KlConfig { placement: KlPlacement::Reward, ..unbiased }), "kl.unbiased");
        let adaptive = Some(AdaptiveKl::default());
        assert_eq!(key(KlConfig { adaptive, ..KlConfig::default() }), "kl.adaptive");
    }

    #[test]
    fn penalties_are_masked() {
        let rows = Rows::new(&[3], vec![true, false, true]).unwrap();
        let config = KlConfig { estimator: KlEstimator::K1, ..KlConfig::default() };
        let logp = [-1.0, f64::NAN, -2.0];
        assert_eq!(config.penalties(0.5, &logp, &[-2.0, 0.0, -2.5], &rows), [0.5, 0.0, 0.25]);
    }

    #[test]
    fn the_term_is_weighted_and_masked() {
        let rows = Rows::new(&[2, 1], vec![true, false, true]).unwrap();
        let config = KlConfig { estimator: KlEstimator::K1, ..KlConfig::default() };
        let logp = [-1.0, f64::NAN, -2.0];
        let input = KlInput {
            rows: &rows,
            logp: &logp,
            logp_old: &logp,
            logp_ref: &[-2.0, 0.0, -2.5],
            weights: &[0.5, 0.0, 0.25],
        };
        let term = term(&config, 0.5, &input);
        assert_eq!(term.loss, 0.5 * (0.5 + 0.25 * 0.5));
        assert_eq!(term.grad, [0.25, 0.0, 0.125]);
        assert_eq!((term.sum, term.tokens), (1.5, 2));
    }
}
