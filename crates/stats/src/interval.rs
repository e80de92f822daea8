//! Confidence intervals of a mean and of a proportion.

use leyden_core::SeedTree;
use serde::Serialize;

use crate::numbers::{draw, mean, quantile, sample_std};

/// The 97.5 % quantile of the standard normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// A confidence interval at 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Whether `value` is inside, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The interval of a mean under the normal approximation, `mean ± 1.96 s/√n`; `None` for fewer than
/// two values.
///
/// ```
/// let interval = leyden_stats::normal_interval(&[1.0, 2.0, 3.0]).unwrap();
/// assert!(interval.contains(2.0) && !interval.contains(4.0));
/// ```
pub fn normal_interval(values: &[f64]) -> Option<Interval> {
    let half = Z_95 * sample_std(values)? / (values.len() as f64).sqrt();
    mean(values).map(|mean| Interval { low: mean - half, high: mean + half })
}

/// The interval of a mean by the percentile bootstrap (Efron 1979) with `resamples` resamples;
/// `None` without values or resamples.
///
/// ```
/// use leyden_core::SeedTree;
///
/// let rewards = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
/// let interval = leyden_stats::bootstrap_interval(&rewards, 1000, SeedTree::new(1)).unwrap();
/// assert!(interval.contains(2.0 / 3.0));
/// ```
pub fn bootstrap_interval(values: &[f64], resamples: usize, seeds: SeedTree) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let n = values.len();
    let mut means: Vec<f64> = (0..resamples as u64)
        .map(|resample| {
            let draws = seeds.index(resample);
            (0..n as u64).map(|k| values[draw(draws.index(k), n)]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&means, 0.025)?, high: quantile(&means, 0.975)? })
}

/// Wilson's interval of a proportion, `successes` of `n` (Wilson 1927): unlike the normal one it
/// stays inside [0, 1] and is valid at 0 of n. `None` if n is 0 or there are more successes than n.
///
/// ```
/// // None of ten correct: the proportion may still be up to 0.28.
/// let interval = leyden_stats::wilson_interval(0, 10).unwrap();
/// assert_eq!(interval.low, 0.0);
/// assert!((interval.high - 0.2775).abs() < 1e-4);
/// ```
pub fn wilson_interval(successes: usize, n: usize) -> Option<Interval> {
    if n == 0 || successes > n {
        return None;
    }
    let (n_f, z2) = (n as f64, Z_95 * Z_95);
    let share = successes as f64 / n_f;
    let centre = (share + z2 / (2.0 * n_f)) / (1.0 + z2 / n_f);
    let half =
        Z_95 / (1.0 + z2 / n_f) * (share * (1.0 - share) / n_f + z2 / (4.0 * n_f * n_f)).sqrt();
    // The bounds are exact at 0 and 1; rounding would leave 1e-17.
    let low = if successes == 0 { 0.0 } else { centre - half };
    let high = if successes == n { 1.0 } else { centre + half };
    Some(Interval { low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ours: f64, expected: f64) {
        assert!((ours - expected).abs() < 1e-9, "{ours} instead of {expected}");
    }

    #[test]
    fn the_normal_interval_of_known_numbers() {
        let interval = normal_interval(&[1.0, 2.0, 6.0]).unwrap();
        close(interval.high - 3.0, Z_95 * (7.0_f64 / 3.0).sqrt());
        close(3.0 - interval.low, interval.high - 3.0);
        assert_eq!(normal_interval(&[1.0]), None);
    }

    #[test]
    fn the_bootstrap_is_near_the_normal_interval_and_repeats() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 7)).collect();
        let seeds = SeedTree::new(3).child("bootstrap");
        let bootstrap = bootstrap_interval(&values, 2000, seeds).unwrap();
        let normal = normal_interval(&values).unwrap();
        let width = normal.high - normal.low;
        assert!((bootstrap.low - normal.low).abs() < 0.1 * width);
        assert!((bootstrap.high - normal.high).abs() < 0.1 * width);
        assert_eq!(bootstrap_interval(&values, 2000, seeds), Some(bootstrap));
        assert_eq!(bootstrap_interval(&[], 10, seeds), None);
        assert_eq!(bootstrap_interval(&values, 0, seeds), None);
    }

    #[test]
    fn wilson_at_the_ends_and_in_the_middle() {
        // Closed forms: at 0 of n the upper end is z²/(n + z²).
        let z2 = Z_95 * Z_95;
        let none = wilson_interval(0, 10).unwrap();
        assert_eq!(none.low, 0.0);
        close(none.high, z2 / (10.0 + z2));
        let all = wilson_interval(10, 10).unwrap();
        assert_eq!(all.high, 1.0);
        close(all.low, 10.0 / (10.0 + z2));
        let half = wilson_interval(5, 10).unwrap();
        close(half.low + half.high, 1.0);
        close(half.high - 0.5, 0.5 * (z2 / (10.0 + z2)).sqrt());
        assert_eq!(wilson_interval(0, 0), None);
        assert_eq!(wilson_interval(2, 1), None);
    }
}
