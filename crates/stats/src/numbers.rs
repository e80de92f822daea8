//! Shared helpers: mean, deviation, quantile, and an integer draw.

use leyden_core::SeedTree;

/// The mean, or `None` of an empty slice. The mean of equal numbers is exactly that number.
///
/// ```
/// assert_eq!(leyden_stats::mean(&[1.0, 2.0, 6.0]), Some(3.0));
/// assert_eq!(leyden_stats::mean(&[]), None);
/// ```
pub fn mean(values: &[f64]) -> Option<f64> {
    // Offsets from the first value, so that rounding cannot shift the mean of equal numbers.
    let first = *values.first()?;
    Some(first + values.iter().map(|x| x - first).sum::<f64>() / values.len() as f64)
}

/// The standard deviation with divisor n − 1, or `None` of fewer than two values. Exactly 0 for
/// equal numbers.
///
/// ```
/// assert_eq!(leyden_stats::sample_std(&[1.0, 3.0]), Some(2.0_f64.sqrt()));
/// assert_eq!(leyden_stats::sample_std(&[1.0]), None);
/// ```
pub fn sample_std(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The quantile of sorted values by linear interpolation between the neighbours (type 7 of Hyndman
/// and Fan), or `None` of an empty slice.
///
/// ```
/// assert_eq!(leyden_stats::quantile(&[0.0, 10.0, 20.0], 0.25), Some(5.0));
/// ```
pub fn quantile(sorted: &[f64], probability: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = probability.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    Some(low + (high - low) * (position - below as f64))
}

/// An integer below `n` from this node's single draw; `n` is at least 1.
pub(crate) fn draw(seed: SeedTree, n: usize) -> usize {
    ((seed.uniform() * n as f64) as usize).min(n - 1)
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
    fn quantiles_interpolate() {
        let sorted = [0.0, 10.0, 20.0, 30.0];
        assert_eq!(quantile(&sorted, 0.0), Some(0.0));
        assert_eq!(quantile(&sorted, 0.5), Some(15.0));
        assert_eq!(quantile(&sorted, 1.0), Some(30.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
