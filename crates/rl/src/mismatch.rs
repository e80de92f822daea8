//! Mismatch between the sampler's and the trainer's log-probabilities.
//!
//! Sampler and trainer run the same weights through different code, so at the first update of a
//! step their log-probabilities differ by rounding only. If they differ by more, the gradient is
//! not that of the sampling policy: wrong positions, a wrong temperature, a truncated distribution,
//! or samples of earlier weights, whose updates in between they then contain.
//! These metrics are computed at every step, whether or not a correction is on. They are sums,
//! maxima and counts, so that the metrics of micro-batches of whole rows merge into the batch's.

use crate::correction::effective_share;
use crate::ratio::LOG_RATIO_LIMIT;
use crate::rows::Rows;

/// Probability ratios inside this range count as equal.
pub const RATIO_RANGE: (f64, f64) = (0.9, 1.1);

/// Differences `d = logp_trainer − logp_sampler` over the tokens inside the mask.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mismatch {
    pub tokens: usize,
    /// Sum of `−d`: k1 of KL(sampler ‖ trainer), since the tokens come from the sampler.
    pub k1_sum: f64,
    /// Sum of `exp(d) − 1 − d`: k3 of KL(sampler ‖ trainer), d clamped to ±20.
    pub k3_sum: f64,
    /// Largest |d|; infinite if a difference is NaN.
    pub max_gap: f64,
    /// Tokens with `exp(d)` outside [0.9, 1.1].
    pub outside: usize,
    /// Sum of the ratios `exp(d)`.
    pub ratio_sum: f64,
    /// Sum of their squares.
    pub ratio_square_sum: f64,
    /// Rows with tokens inside the mask.
    pub rows: usize,
    /// Sum over rows of `exp(Σ d)²`.
    pub row_ratio_square_sum: f64,
    /// Sum over rows of `exp(−mean d)`: perplexity of the trainer over that of the sampler.
    pub perplexity_ratio_sum: f64,
}

impl Mismatch {
    /// Measures a batch or part of it.
    ///
    /// # Panics
    /// If an array does not have one entry per token.
    pub fn measure(logp_trainer: &[f64], logp_sampler: &[f64], rows: &Rows) -> Self {
        rows.assert_fits("logp_trainer", logp_trainer);
        rows.assert_fits("logp_sampler", logp_sampler);
        let mut all = Self::default();
        for row in 0..rows.len() {
            let (before, k1_before) = (all.tokens, all.k1_sum);
            for t in rows.active_in(row) {
                all.merge(&Self::of_token(logp_trainer[t] - logp_sampler[t]));
            }
            let tokens = all.tokens - before;
            if tokens > 0 {
                all.add_row(k1_before - all.k1_sum, tokens);
            }
        }
        all
    }

    fn of_token(d: f64) -> Self {
        let clamped = d.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
        let ratio = clamped.exp();
        let inside = ratio >= RATIO_RANGE.0 && ratio <= RATIO_RANGE.1;
        Self {
            tokens: 1,
            k1_sum: -d,
            // exp_m1 preserves precision: d is of the order of rounding errors.
            k3_sum: clamped.exp_m1() - clamped,
            max_gap: if d.is_nan() { f64::INFINITY } else { d.abs() },
            outside: usize::from(!inside),
            ratio_sum: ratio,
            ratio_square_sum: ratio * ratio,
            ..Self::default()
        }
    }

    /// Adds a row of `tokens` tokens whose differences add up to `sum`.
    fn add_row(&mut self, sum: f64, tokens: usize) {
        self.rows += 1;
        let log = sum.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
        self.row_ratio_square_sum += (2.0 * log).exp();
        self.perplexity_ratio_sum += (-sum / tokens as f64).exp();
    }

    /// Adds the metrics of another part.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.k1_sum += other.k1_sum;
        self.k3_sum += other.k3_sum;
        self.max_gap = self.max_gap.max(other.max_gap);
        self.outside += other.outside;
        self.ratio_sum += other.ratio_sum;
        self.ratio_square_sum += other.ratio_square_sum;
        self.rows += other.rows;
        self.row_ratio_square_sum += other.row_ratio_square_sum;
        self.perplexity_ratio_sum += other.perplexity_ratio_sum;
    }

    /// Mean k1 per token, in nats; 0 without tokens.
    pub fn k1(&self) -> f64 {
        self.per_token(self.k1_sum)
    }

    /// Mean k3 per token, in nats; 0 without tokens.
    pub fn k3(&self) -> f64 {
        self.per_token(self.k3_sum)
    }

    /// Share of tokens with a ratio outside [0.9, 1.1].
    pub fn outside_share(&self) -> f64 {
        self.per_token(self.outside as f64)
    }

    /// χ² of trainer and sampler by token, `mean exp(d)² − 1`; 0 without tokens.
    pub fn chi2_token(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.ratio_square_sum / self.tokens as f64 - 1.0 }
    }

    /// χ² by row, `mean exp(Σ d)² − 1`; 0 without rows. Far more sensitive: it determines the
    /// variance of a sequence's importance weight.
    pub fn chi2_sequence(&self) -> f64 {
        if self.rows == 0 { 0.0 } else { self.row_ratio_square_sum / self.rows as f64 - 1.0 }
    }

    /// Mean over rows of the ratio of the trainer's perplexity to the sampler's; 1 without rows.
    pub fn perplexity_ratio(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.perplexity_ratio_sum / self.rows as f64 }
    }

    /// Effective sample size of the token ratios as a share of the tokens; 1 if all are equal.
    pub fn effective_share(&self) -> f64 {
        effective_share(self.tokens, self.ratio_sum, self.ratio_square_sum)
    }

    fn per_token(&self, sum: f64) -> f64 {
        if self.tokens == 0 { 0.0 } else { sum / self.tokens as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_known_differences() {
        let rows = Rows::new(&[4], vec![true, true, false, true]).unwrap();
        let sampler = [-1.0, -1.0, -1.0, -1.0];
        let trainer = [-1.0, -0.8, f64::NAN, -1.05];
        let m = Mismatch::measure(&trainer, &sampler, &rows);
        assert_eq!(m.tokens, 3);
        assert_eq!(m.outside, 1);
        assert!((m.max_gap - 0.2).abs() < 1e-12);
        assert!((m.k1() - (-0.2 + 0.05) / 3.0).abs() < 1e-12);
        let k3 = (0.2_f64.exp() - 1.2) + ((-0.05_f64).exp() - 0.95);
        assert!((m.k3() - k3 / 3.0).abs() < 1e-12);
        assert!((m.outside_share() - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn figures_of_ratios_two_and_a_half() {
        // A row of ratios 2 and 1/2, a row without tokens, a row of ratio 2.
        let rows = Rows::new(&[2, 1, 2], vec![true, true, false, false, true]).unwrap();
        let two = 2.0_f64.ln();
        let trainer = [two - 1.0, -two - 1.0, f64::NAN, f64::NAN, two - 1.0];
        let m = Mismatch::measure(&trainer, &[-1.0; 5], &rows);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} instead of {b}");
        close(m.chi2_token(), (4.0 + 0.25 + 4.0) / 3.0 - 1.0);
        close(m.chi2_sequence(), (1.0 + 4.0) / 2.0 - 1.0);
        close(m.perplexity_ratio(), (1.0 + 0.5) / 2.0);
        close(m.effective_share(), 4.5 * 4.5 / (3.0 * 8.25));
        let none = Mismatch::default();
        let neutral = [none.chi2_token(), none.chi2_sequence(), none.perplexity_ratio()];
        assert_eq!(neutral, [0.0, 0.0, 1.0]);
        assert_eq!(none.effective_share(), 1.0);
    }

    #[test]
    fn parts_merge_into_the_whole() {
        let sampler = [-1.0, -2.0, -0.5, -3.0];
        let trainer = [-1.1, -1.5, -0.5, -3.2];
        let rows = Rows::dense(&[1, 3]);
        let mut merged = Mismatch::default();
        for row in 0..2 {
            let part = rows.part(row..row + 1);
            let range = part.tokens.clone();
            let m = Mismatch::measure(&trainer[range.clone()], &sampler[range], &part.rows);
            merged.merge(&m);
        }
        let whole = Mismatch::measure(&trainer, &sampler, &rows);
        assert_eq!(merged.outside, whole.outside);
        assert_eq!(merged.max_gap, whole.max_gap);
        assert!((merged.k3_sum - whole.k3_sum).abs() < 1e-15);
        assert!((merged.chi2_sequence() - whole.chi2_sequence()).abs() < 1e-15);
        assert!((merged.perplexity_ratio() - whole.perplexity_ratio()).abs() < 1e-15);
        assert!((merged.effective_share() - whole.effective_share()).abs() < 1e-15);
    }

    #[test]
    fn a_nan_is_visible() {
        let m = Mismatch::measure(&[f64::NAN], &[-1.0], &Rows::dense(&[1]));
        assert_eq!(m.max_gap, f64::INFINITY);
        assert_eq!(m.outside, 1);
    }
}
