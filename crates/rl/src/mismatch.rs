//! How far the sampler's log-probabilities are from the trainer's.
//!
//! Sampler and trainer run the same weights through different code, so at the first update
//! of a step their log-probabilities differ by rounding only. If they differ by more, the
//! gradient is of another policy than the one that acted: wrong positions, a wrong
//! temperature, a truncated distribution. These figures are measured at every step. They are
//! sums, a maximum and counts, so that the figures of micro-batches merge into the batch's.

use crate::Rows;
use crate::kl::LOG_RATIO_LIMIT;

/// Ratios of probabilities inside this range count as equal.
pub const RATIO_RANGE: (f64, f64) = (0.9, 1.1);

/// Differences `d = logp_trainer − logp_sampler` over the tokens inside the mask.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mismatch {
    pub tokens: usize,
    /// Sum of `−d`: k1 of KL(sampler ‖ trainer), since the sampler drew the tokens.
    pub k1_sum: f64,
    /// Sum of `exp(d) − 1 − d`: k3 of KL(sampler ‖ trainer), d clamped to ±20.
    pub k3_sum: f64,
    /// Largest |d|; infinite if a difference is not a number.
    pub max_gap: f64,
    /// Tokens with `exp(d)` outside [0.9, 1.1].
    pub outside: usize,
}

impl Mismatch {
    /// Measures a batch or a part of it.
    ///
    /// # Panics
    /// If an array does not have one entry per token.
    pub fn measure(logp_trainer: &[f64], logp_sampler: &[f64], rows: &Rows) -> Self {
        rows.assert_fits("logp_trainer", logp_trainer);
        rows.assert_fits("logp_sampler", logp_sampler);
        let mut all = Self::default();
        for t in rows.active() {
            let d = logp_trainer[t] - logp_sampler[t];
            let clamped = d.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
            let ratio = clamped.exp();
            let inside = ratio >= RATIO_RANGE.0 && ratio <= RATIO_RANGE.1;
            all.merge(&Self {
                tokens: 1,
                k1_sum: -d,
                // exp_m1 keeps the digits that matter here: d is of the order of rounding.
                k3_sum: clamped.exp_m1() - clamped,
                max_gap: if d.is_nan() { f64::INFINITY } else { d.abs() },
                outside: usize::from(!inside),
            });
        }
        all
    }

    /// Adds the figures of another part.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.k1_sum += other.k1_sum;
        self.k3_sum += other.k3_sum;
        self.max_gap = self.max_gap.max(other.max_gap);
        self.outside += other.outside;
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
    }

    #[test]
    fn a_nan_is_seen() {
        let m = Mismatch::measure(&[f64::NAN], &[-1.0], &Rows::dense(&[1]));
        assert_eq!(m.max_gap, f64::INFINITY);
        assert_eq!(m.outside, 1);
    }
}
