//! Correction for a mismatch between the sampler's and the trainer's policy.
//!
//! Sampler and trainer run the same weights through different code, or weights of different
//! versions, so tokens were drawn from a slightly different policy than the one being
//! differentiated. Importance sampling weighs each token's loss by `w = π_trainer / π_sampler`,
//! bounded; rejection excludes tokens or rows outside bounds. Both are constants without gradient
//! and become one factor per token on the loss weights. A row's factors depend only on that row, so
//! the split into micro-batches has no effect; rejected tokens stay in the normalisers, which makes
//! the step smaller instead of scaling up the remaining tokens.
//!
//! `d = logp_trainer − logp_sampler` per token; d and its sum over a row are clamped to ±20 before
//! exponentiation. The trainer's are those before the update, so the weight is a factor beside the
//! ratio of a loss, which starts there: the product is the ratio to the sampler (the decoupled
//! objective, arXiv 2110.00641). Some combinations have names elsewhere: token with truncate is TIS, token with
//! reject IcePop, sequence with reject the sequence mask of TRL (there with `high = 3`).

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, not_negative, positive, require};
use crate::ratio::LOG_RATIO_LIMIT;
use crate::rows::Rows;

/// The unit of an importance weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightOf {
    /// None: every weight is 1.
    #[default]
    None,
    /// A token: its ratio.
    Token,
    /// A row: the product of its tokens' ratios.
    Sequence,
}

/// Treatment of weights outside their bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// They are clamped to the bound.
    #[default]
    Truncate,
    /// They become 0.
    Reject,
}

/// The unit over which a rejection measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectOver {
    /// Each token; rejects single tokens.
    Token,
    /// The sum over a row. This and the following reject whole rows.
    SequenceSum,
    /// The mean over a row.
    SequenceMean,
    /// The maximum of a row; for k2 and k3 only, since k1 is signed.
    SequenceMax,
}

/// The measure of a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectBy {
    /// The ratio: bounds apply to `exp(d)`, `exp(Σ d)` or, as geometric mean, `exp(mean d)`.
    K1,
    /// `d²/2`.
    K2,
    /// `exp(d) − 1 − d`, the estimate of KL(sampler ‖ trainer).
    K3,
}

/// Excludes tokens or rows outside bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    pub over: RejectOver,
    pub by: RejectBy,
    /// Lower bound; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper bound; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// The correction of a run: none by default, as in the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorrectionConfig {
    pub weight: WeightOf,
    /// Smallest weight.
    pub low: f64,
    /// Largest weight.
    pub high: f64,
    pub beyond: Beyond,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reject: Vec<Rejection>,
}

impl Default for CorrectionConfig {
    fn default() -> Self {
        Self {
            weight: WeightOf::None,
            low: 0.0,
            high: 2.0,
            beyond: Beyond::Truncate,
            reject: Vec::new(),
        }
    }
}

impl CorrectionConfig {
    /// Whether the sampler's log-probabilities are needed.
    pub fn is_on(&self) -> bool {
        self.weight != WeightOf::None || !self.reject.is_empty()
    }

    /// # Errors
    /// Contradictory or missing bounds, or a maximum of k1.
    pub fn validate(&self) -> Result<(), ConfigError> {
        not_negative("correction.low", self.low)?;
        positive("correction.high", self.high)?;
        let ordered = self.low <= self.high;
        require(ordered, "correction.low", self.low, "at most correction.high")?;
        for rejection in &self.reject {
            if rejection.over == RejectOver::SequenceMax && rejection.by == RejectBy::K1 {
                let why = "k1 is signed, so its maximum ignores ratios below 1: use k2 \
                           or k3";
                return Err(ConfigError::combination("correction.reject", why));
            }
            let (low, high) = (rejection.low.unwrap_or(0.0), rejection.high.unwrap_or(f64::MAX));
            not_negative("correction.reject.low", low)?;
            positive("correction.reject.high", high)?;
            require(low <= high, "correction.reject.low", low, "at most correction.reject.high")?;
            if rejection.low.is_none() && rejection.high.is_none() {
                let why = "a rejection without bounds rejects nothing: give low or high";
                return Err(ConfigError::combination("correction.reject", why));
            }
        }
        Ok(())
    }
}

/// Counts and sums over the tokens of a batch or of part of it; parts can be merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CorrectionFigures {
    pub tokens: usize,
    /// Tokens whose weight was outside its bounds.
    pub beyond: usize,
    /// Tokens excluded for any reason.
    pub rejected: usize,
    /// Sum of the factors.
    pub sum: f64,
    /// Sum of their squares.
    pub square_sum: f64,
}

impl CorrectionFigures {
    /// Adds the counts and sums of another part.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.beyond += other.beyond;
        self.rejected += other.rejected;
        self.sum += other.sum;
        self.square_sum += other.square_sum;
    }

    /// Share of tokens whose weight was outside its bounds; 0 without tokens.
    pub fn beyond_share(&self) -> f64 {
        self.beyond as f64 / self.tokens.max(1) as f64
    }

    /// Share of excluded tokens; 0 without tokens.
    pub fn rejected_share(&self) -> f64 {
        self.rejected as f64 / self.tokens.max(1) as f64
    }

    /// Effective sample size as a share, `(Σ w)² / (n Σ w²)`: 1 if all factors are equal.
    pub fn effective_share(&self) -> f64 {
        effective_share(self.tokens, self.sum, self.square_sum)
    }
}

/// `(Σ w)² / (n Σ w²)`; 1 without tokens.
pub(crate) fn effective_share(n: usize, sum: f64, square_sum: f64) -> f64 {
    if n == 0 || square_sum == 0.0 { 1.0 } else { sum * sum / (n as f64 * square_sum) }
}

/// A correction of a batch or of part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Correction {
    /// The factor of each token's weight; 0 if excluded or outside the mask.
    pub factors: Vec<f64>,
    pub figures: CorrectionFigures,
}

/// The correction factors for tokens drawn by the sampler.
///
/// # Panics
/// If an array does not have one entry per token.
pub fn correct(
    config: &CorrectionConfig,
    logp_trainer: &[f64],
    logp_sampler: &[f64],
    rows: &Rows,
) -> Correction {
    rows.assert_fits("logp_trainer", logp_trainer);
    rows.assert_fits("logp_sampler", logp_sampler);
    let mut correction =
        Correction { factors: vec![0.0; rows.tokens()], figures: CorrectionFigures::default() };
    let difference = |t: usize| logp_trainer[t] - logp_sampler[t];
    for row in 0..rows.len() {
        let tokens: Vec<(usize, f64)> = rows.active_in(row).map(|t| (t, difference(t))).collect();
        let differences: Vec<f64> = tokens.iter().map(|&(_, d)| d).collect();
        let kept = config.reject.iter().all(|rejection| rejection.keeps_row(&differences));
        let row_log: f64 = differences.iter().sum();
        for &(t, d) in &tokens {
            let weight = match config.weight {
                WeightOf::None => 1.0,
                WeightOf::Token => ratio(d),
                WeightOf::Sequence => ratio(row_log),
            };
            let token_kept = kept && config.reject.iter().all(|r| r.keeps_token(d));
            correction.add(config, t, weight, token_kept);
        }
    }
    correction
}

impl Correction {
    fn add(&mut self, config: &CorrectionConfig, t: usize, weight: f64, kept: bool) {
        let weighs = config.weight != WeightOf::None;
        let beyond = weighs && (weight < config.low || weight > config.high);
        let factor = match config.beyond {
            _ if !kept => 0.0,
            Beyond::Reject if beyond => 0.0,
            Beyond::Truncate if beyond => weight.clamp(config.low, config.high),
            _ => weight,
        };
        self.factors[t] = factor;
        self.figures.merge(&CorrectionFigures {
            tokens: 1,
            beyond: usize::from(beyond),
            rejected: usize::from(!kept || (beyond && config.beyond == Beyond::Reject)),
            sum: factor,
            square_sum: factor * factor,
        });
    }
}

fn ratio(log: f64) -> f64 {
    log.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
}

impl Rejection {
    /// Whether a row with these differences is kept. NaN is not rejected, so that it is visible in
    /// the loss.
    fn keeps_row(&self, differences: &[f64]) -> bool {
        if self.over == RejectOver::Token || differences.is_empty() {
            return true;
        }
        let measures = differences.iter().map(|&d| self.measure(d));
        let value = match self.over {
            RejectOver::SequenceMax => measures.fold(f64::NEG_INFINITY, f64::max),
            RejectOver::SequenceMean => measures.sum::<f64>() / differences.len() as f64,
            RejectOver::SequenceSum | RejectOver::Token => measures.sum(),
        };
        self.is_inside(value)
    }

    fn keeps_token(&self, d: f64) -> bool {
        self.over != RejectOver::Token || self.is_inside(self.measure(d))
    }

    /// The summand; for k1 the difference itself, whose exponential is bounded.
    fn measure(&self, d: f64) -> f64 {
        match self.by {
            RejectBy::K1 => d,
            RejectBy::K2 => 0.5 * d * d,
            RejectBy::K3 => {
                let clamped = d.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
                clamped.exp_m1() - clamped
            }
        }
    }

    fn is_inside(&self, measure: f64) -> bool {
        let value = if self.by == RejectBy::K1 { ratio(measure) } else { measure };
        let outside =
            self.low.is_some_and(|low| value < low) || self.high.is_some_and(|high| value > high);
        !outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of ratios 3, 0.5, (masked) and 0.8, 1.
    fn run(text: &str) -> Correction {
        let rows = Rows::new(&[3, 2], vec![true, true, false, true, true]).unwrap();
        let trainer = [3.0_f64.ln() - 1.0, 0.5_f64.ln() - 1.0, f64::NAN, 0.8_f64.ln() - 1.0, -1.0];
        let config: CorrectionConfig = toml::from_str(text).unwrap();
        assert_eq!(config.validate(), Ok(()), "{text}");
        correct(&config, &trainer, &[-1.0; 5], &rows)
    }

    fn close(ours: &[f64], expected: &[f64]) {
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{ours:?} instead of {expected:?}");
        }
    }

    #[test]
    fn tokens_are_truncated_or_rejected_beyond_their_bounds() {
        let truncated = run("weight = 'token'");
        close(&truncated.factors, &[2.0, 0.5, 0.0, 0.8, 1.0]);
        assert_eq!((truncated.figures.beyond, truncated.figures.rejected), (1, 0));
        let rejected = run("weight = 'token'\nlow = 0.6\nbeyond = 'reject'");
        close(&rejected.factors, &[0.0, 0.0, 0.0, 0.8, 1.0]);
        assert_eq!((rejected.figures.beyond, rejected.figures.rejected), (2, 2));
        let floor = run("weight = 'token'\nlow = 0.6");
        close(&floor.factors, &[2.0, 0.6, 0.0, 0.8, 1.0]);
    }

    #[test]
    fn a_sequence_has_the_product_of_its_tokens() {
        close(&run("weight = 'sequence'").factors, &[1.5, 1.5, 0.0, 0.8, 0.8]);
        let masked = run("weight = 'sequence'\nhigh = 1.2\nbeyond = 'reject'");
        close(&masked.factors, &[0.0, 0.0, 0.0, 0.8, 0.8]);
        assert!((masked.figures.rejected_share() - 0.5).abs() < 1e-15);
    }

    #[test]
    fn rejections_by_every_measure() {
        let token = run("reject = [{ over = 'token', by = 'k1', low = 0.6, high = 2.0 }]");
        close(&token.factors, &[0.0, 0.0, 0.0, 1.0, 1.0]);
        // Geometric means √1.5 and √0.8.
        let mean = run("reject = [{ over = 'sequence_mean', by = 'k1', high = 1.2 }]");
        close(&mean.factors, &[0.0, 0.0, 0.0, 1.0, 1.0]);
        let mean = run("reject = [{ over = 'sequence_mean', by = 'k1', high = 1.3 }]");
        close(&mean.factors, &[1.0, 1.0, 0.0, 1.0, 1.0]);
        // Products 1.5 and 0.8.
        let sum = run("reject = [{ over = 'sequence_sum', by = 'k1', low = 0.9 }]");
        close(&sum.factors, &[1.0, 1.0, 0.0, 0.0, 0.0]);
        // Largest k3 of the first row: 3 − 1 − ln 3 = 0.90.
        let max = run("reject = [{ over = 'sequence_max', by = 'k3', high = 0.9 }]");
        close(&max.factors, &[0.0, 0.0, 0.0, 1.0, 1.0]);
        let max = run("reject = [{ over = 'sequence_max', by = 'k3', high = 0.91 }]");
        close(&max.factors, &[1.0, 1.0, 0.0, 1.0, 1.0]);
        // k2 of 0.8 is 0.025.
        let square = run("reject = [{ over = 'sequence_sum', by = 'k2', high = 0.02 }]");
        assert_eq!(square.figures.rejected, 4);
        // A token is kept only if all rejections keep it.
        let both = run("weight = 'token'\nreject = [\
             { over = 'sequence_sum', by = 'k1', low = 0.9 },\
             { over = 'token', by = 'k1', high = 2.5 }]");
        close(&both.factors, &[0.0, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn switched_off_all_factors_are_one() {
        let off = run("");
        close(&off.factors, &[1.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(off.figures.effective_share(), 1.0);
        assert!(!CorrectionConfig::default().is_on());
    }

    #[test]
    fn nan_differences_stay_visible() {
        for text in ["weight = 'token'", "weight = 'sequence'\nbeyond = 'reject'"] {
            let config: CorrectionConfig = toml::from_str(text).unwrap();
            let result = correct(&config, &[f64::NAN], &[-1.0], &Rows::dense(&[1]));
            assert!(result.factors[0].is_nan(), "{text}");
        }
    }

    #[test]
    fn invalid_bounds_are_rejected() {
        for (text, key) in [
            ("low = 3.0", "correction.low"),
            ("high = 0.0", "correction.high"),
            ("reject = [{ over = 'sequence_max', by = 'k1', high = 2.0 }]", "correction.reject"),
            ("reject = [{ over = 'token', by = 'k1' }]", "correction.reject"),
            (
                "reject = [{ over = 'token', by = 'k1', low = 2.0, high = 1.0 }]",
                "correction.reject.low",
            ),
        ] {
            let config: CorrectionConfig = toml::from_str(text).unwrap();
            assert_eq!(config.validate().unwrap_err().key(), key, "{text}");
        }
    }
}
