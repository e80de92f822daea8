//! Statistics that reports and evaluations rest on.
//!
//! Intervals are at 95 %. Bootstraps draw from the seed tree, so the same run gives the same
//! interval.

use leyden_core::SeedTree;

/// The 97.5 % quantile of the standard normal distribution.
pub const Z_95: f64 = 1.959_963_984_540_054;

/// A confidence interval at 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// The mean, or `None` of nothing. Of equal numbers it is exactly that number.
pub fn mean(values: &[f64]) -> Option<f64> {
    // Taken from the first value on, rounding cannot move the mean of equal numbers.
    let first = *values.first()?;
    Some(first + values.iter().map(|x| x - first).sum::<f64>() / values.len() as f64)
}

/// The standard deviation with divisor n − 1, or `None` of fewer than two. Of equal numbers it
/// is exactly 0.
pub fn sample_std(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The interval of a mean under the normal approximation, `mean ± 1.96 s/√n`; `None` of fewer
/// than two.
pub fn normal_interval(values: &[f64]) -> Option<Interval> {
    let half = Z_95 * sample_std(values)? / (values.len() as f64).sqrt();
    mean(values).map(|mean| Interval { low: mean - half, high: mean + half })
}

/// The interval of a mean by the percentile bootstrap (Efron 1979) with `resamples`
/// resamples; `None` of no values or no resamples.
pub fn bootstrap_interval(values: &[f64], resamples: usize, seeds: SeedTree) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let n = values.len();
    let mut means: Vec<f64> = (0..resamples as u64)
        .map(|resample| {
            let draws = seeds.index(resample);
            let draw =
                |k: usize| ((draws.index(k as u64).uniform() * n as f64) as usize).min(n - 1);
            (0..n).map(|k| values[draw(k)]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&means, 0.025)?, high: quantile(&means, 0.975)? })
}

/// The quantile of sorted values by linear interpolation between the neighbours (type 7 of
/// Hyndman and Fan), or `None` of nothing.
pub fn quantile(sorted: &[f64], probability: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = probability.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    Some(low + (high - low) * (position - below as f64))
}

/// Two series that cannot be compared item by item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairedError {
    #[error("a paired comparison needs the same items on both sides: {before} and {after} differ")]
    Lengths { before: usize, after: usize },
    #[error("a paired comparison needs at least one item and one resample")]
    Empty,
}

/// A difference on the same items.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean of `after − before`.
    pub mean: f64,
    pub interval: Interval,
    pub items: usize,
}

impl Difference {
    /// Whether the interval excludes 0.
    pub fn is_significant(&self) -> bool {
        !self.interval.contains(0.0)
    }
}

/// The mean difference `after − before` of the same items in the same order, with its paired
/// percentile bootstrap.
///
/// # Errors
/// If the series differ in length or there is nothing to draw from.
pub fn paired_bootstrap(
    before: &[f64],
    after: &[f64],
    resamples: usize,
    seeds: SeedTree,
) -> Result<Difference, PairedError> {
    if before.len() != after.len() {
        return Err(PairedError::Lengths { before: before.len(), after: after.len() });
    }
    let differences: Vec<f64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
    let interval = bootstrap_interval(&differences, resamples, seeds).ok_or(PairedError::Empty)?;
    let mean = mean(&differences).ok_or(PairedError::Empty)?;
    Ok(Difference { mean, interval, items: differences.len() })
}

/// Wilson's interval of a share, `successes` of `n` (Wilson 1927): unlike the normal one it
/// stays inside [0, 1] and is right at 0 of n. `None` if n is 0 or there are more successes
/// than n.
pub fn wilson_interval(successes: usize, n: usize) -> Option<Interval> {
    if n == 0 || successes > n {
        return None;
    }
    let (n_f, z2) = (n as f64, Z_95 * Z_95);
    let share = successes as f64 / n_f;
    let centre = (share + z2 / (2.0 * n_f)) / (1.0 + z2 / n_f);
    let half =
        Z_95 / (1.0 + z2 / n_f) * (share * (1.0 - share) / n_f + z2 / (4.0 * n_f * n_f)).sqrt();
    // The ends are exact where the share is; rounding would leave 1e-17.
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
    fn means_and_deviations() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[0.1; 7]), Some(0.1));
        assert_eq!(sample_std(&[0.1; 7]), Some(0.0));
        assert_eq!(sample_std(&[3.0]), None);
        close(mean(&[1.0, 2.0, 6.0]).unwrap(), 3.0);
        close(sample_std(&[1.0, 2.0, 6.0]).unwrap(), 7.0_f64.sqrt());
    }

    #[test]
    fn the_normal_interval_of_known_numbers() {
        let interval = normal_interval(&[1.0, 2.0, 6.0]).unwrap();
        close(interval.high - 3.0, Z_95 * (7.0_f64 / 3.0).sqrt());
        close(3.0 - interval.low, interval.high - 3.0);
        assert_eq!(normal_interval(&[1.0]), None);
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [0.0, 10.0, 20.0, 30.0];
        assert_eq!(quantile(&sorted, 0.0), Some(0.0));
        assert_eq!(quantile(&sorted, 0.5), Some(15.0));
        assert_eq!(quantile(&sorted, 1.0), Some(30.0));
        assert_eq!(quantile(&[], 0.5), None);
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
    fn pairing_removes_what_items_have_in_common() {
        // Items differ by hundreds; each gains 1, or 2 every other time.
        let before: Vec<f64> = (0..50).map(|i| f64::from(i) * 100.0).collect();
        let after: Vec<f64> =
            before.iter().enumerate().map(|(i, x)| x + 1.0 + (i % 2) as f64).collect();
        let difference = paired_bootstrap(&before, &after, 500, SeedTree::new(0)).unwrap();
        close(difference.mean, 1.5);
        assert!(difference.is_significant());
        assert!(difference.interval.low > 1.2 && difference.interval.high < 1.8);
        let none = paired_bootstrap(&before, &before, 500, SeedTree::new(0)).unwrap();
        assert!(!none.is_significant());
        let error = paired_bootstrap(&before, &after[1..], 500, SeedTree::new(0)).unwrap_err();
        assert_eq!(error, PairedError::Lengths { before: 50, after: 49 });
        let empty = paired_bootstrap(&[], &[], 500, SeedTree::new(0));
        assert_eq!(empty.unwrap_err(), PairedError::Empty);
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
