//! Differences in mean between two groups of runs.
//!
//! Groups are small, three to twenty runs, so Student's t is used rather than a bootstrap, whose
//! intervals are too narrow for few values. `tests/calibration.rs` measures how often two equal
//! groups are called different.
//!
//! No test of few runs covers what none of them shows. If one run in five of only one group
//! collapses, and the means are equal because its other runs are better, then 34 % of the
//! comparisons of 5 pairs claim a difference and 8 % of those of 12: in a third of the groups of 5
//! no run has collapsed.

use crate::interval::Interval;
use crate::numbers::{mean, sample_std};
use crate::student::{student_quantile, two_sided};

/// The smallest number of runs of each side, or of pairs, that is tested.
pub const FEWEST_RUNS: usize = 3;

/// A spread below this share of the values is rounding.
const ROUNDING: f64 = 1e-12;

/// Why two groups cannot be tested.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DifferenceError {
    #[error("a paired test needs as many values on both sides: {before} and {after} differ")]
    Lengths { before: usize, after: usize },
    #[error("too few values: {found} of at least {FEWEST_RUNS}")]
    TooFew { found: usize },
    #[error("value {position} is {value}, which is not a finite number")]
    NotFinite { position: usize, value: f64 },
    /// All differences are equal, so their spread cannot be estimated.
    #[error("there is no spread: every difference is {mean}")]
    NoSpread { mean: f64 },
}

/// A difference in mean with its standard error. Mean, standard error and intervals are in units
/// of the values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanDifference {
    pub mean: f64,
    pub standard_error: f64,
    pub degrees_of_freedom: f64,
    /// Standard deviation of the differences (paired) or of one run (unpaired, both sides equal),
    /// for [`crate::seeds_needed`].
    pub std: f64,
}

impl MeanDifference {
    /// The two-sided 95 % interval. It excludes 0 exactly if [`Self::p_value`] is below 0.05.
    pub fn interval(&self) -> Interval {
        self.around(0.975)
    }

    /// The one-sided 95 % bounds: the difference is not below `low`, and not above `high`. Each
    /// holds by itself; together they are the 90 % interval.
    pub fn bounds(&self) -> Interval {
        self.around(0.95)
    }

    /// Probability of a difference at least this large, either way, if the means are equal.
    pub fn p_value(&self) -> f64 {
        two_sided(self.mean / self.standard_error, self.degrees_of_freedom)
    }

    fn around(&self, probability: f64) -> Interval {
        let quantile = student_quantile(probability, self.degrees_of_freedom);
        let half = quantile.unwrap_or(f64::INFINITY) * self.standard_error;
        Interval { low: self.mean - half, high: self.mean + half }
    }
}

/// Student's paired t test (Student 1908) of the mean of `after − before`, in the same order on
/// both sides: n − 1 degrees of freedom. What a pair has in common cancels.
///
/// # Errors
/// Different lengths, fewer than [`FEWEST_RUNS`] pairs, a non-finite value, or differences that
/// are all equal.
///
/// ```
/// let (before, after) = ([0.50, 0.60, 0.40], [0.56, 0.67, 0.45]);
/// let difference = leyden_stats::paired_t(&before, &after).unwrap();
/// assert!((difference.mean - 0.06).abs() < 1e-12);
/// assert!(difference.p_value() < 0.05 && difference.interval().low > 0.0);
/// ```
pub fn paired_t(before: &[f64], after: &[f64]) -> Result<MeanDifference, DifferenceError> {
    if before.len() != after.len() {
        return Err(DifferenceError::Lengths { before: before.len(), after: after.len() });
    }
    check(before)?;
    check(after)?;
    let differences: Vec<f64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
    let (mean, std) = moments(&differences)?;
    if std <= ROUNDING * largest(before).max(largest(after)) {
        return Err(DifferenceError::NoSpread { mean });
    }
    let n = differences.len() as f64;
    Ok(MeanDifference { mean, standard_error: std / n.sqrt(), degrees_of_freedom: n - 1.0, std })
}

/// Welch's t test (Welch 1947) of the mean of `b` minus that of `a`, for independent groups, with
/// a lower limit of the standard error: that of a common variance, `s √(1/n + 1/m)`.
///
/// For groups of equal size the limit changes nothing. For unequal ones Welch's test alone is
/// wrong for rewards of which some are near 0 because the run collapsed: if the few runs of the
/// smaller group are alike by chance, its variance counts as small although it has the larger
/// weight. With 3 runs against 20, one in five collapsing in both groups, 26 % of the comparisons
/// were called different.
///
/// # Errors
/// Fewer than [`FEWEST_RUNS`] values on a side, a non-finite value, or no spread on both sides.
///
/// ```
/// let difference = leyden_stats::welch_t(&[0.2, 0.3, 0.25], &[0.6, 0.7, 0.5, 0.6]).unwrap();
/// assert!((difference.mean - 0.35).abs() < 1e-12);
/// assert!(difference.p_value() < 0.05);
/// ```
pub fn welch_t(a: &[f64], b: &[f64]) -> Result<MeanDifference, DifferenceError> {
    check(a)?;
    check(b)?;
    let ((mean_a, std_a), (mean_b, std_b)) = (moments(a)?, moments(b)?);
    let mean = mean_b - mean_a;
    if std_a.max(std_b) <= ROUNDING * largest(a).max(largest(b)) {
        return Err(DifferenceError::NoSpread { mean });
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (of_a, of_b) = (std_a * std_a / n, std_b * std_b / m);
    let welch = of_a + of_b;
    // The equation of Welch and Satterthwaite.
    let degrees_of_freedom = welch * welch / (of_a * of_a / (n - 1.0) + of_b * of_b / (m - 1.0));
    let common = ((n - 1.0) * std_a * std_a + (m - 1.0) * std_b * std_b) / (n + m - 2.0);
    let standard_error = welch.max(common * (1.0 / n + 1.0 / m)).sqrt();
    Ok(MeanDifference { mean, standard_error, degrees_of_freedom, std: common.sqrt() })
}

fn check(values: &[f64]) -> Result<(), DifferenceError> {
    if let Some(position) = values.iter().position(|value| !value.is_finite()) {
        return Err(DifferenceError::NotFinite { position, value: values[position] });
    }
    if values.len() < FEWEST_RUNS {
        return Err(DifferenceError::TooFew { found: values.len() });
    }
    Ok(())
}

fn moments(values: &[f64]) -> Result<(f64, f64), DifferenceError> {
    let too_few = DifferenceError::TooFew { found: values.len() };
    mean(values).zip(sample_std(values)).ok_or(too_few)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ours: f64, expected: f64, tolerance: f64) {
        assert!((ours - expected).abs() < tolerance, "{ours} instead of {expected}");
    }

    /// Student's data of 1908, extra hours of sleep with two drugs: `sleep` of R.
    const FIRST: [f64; 10] = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
    const SECOND: [f64; 10] = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];

    #[test]
    fn the_paired_test_of_students_data() {
        // t.test(extra ~ group, sleep, paired = TRUE) of R.
        let found = paired_t(&FIRST, &SECOND).unwrap();
        close(found.mean, 1.58, 1e-12);
        close(found.mean / found.standard_error, 4.062_127_683_382_037, 1e-10);
        assert_eq!(found.degrees_of_freedom, 9.0);
        close(found.p_value(), 0.002_832_890_197_384, 1e-10);
        close(found.interval().low, 0.700_114_2, 1e-6);
        close(found.interval().high, 2.459_885_8, 1e-6);
        // The bounds use t.ppf(0.95, 9).
        close(found.bounds().low, 1.58 - 1.833_112_932_653_633_5 * found.standard_error, 1e-7);
        assert!(found.bounds().low > found.interval().low);
        let back = paired_t(&SECOND, &FIRST).unwrap();
        close(back.mean, -1.58, 1e-12);
        close(back.p_value(), found.p_value(), 1e-12);
    }

    #[test]
    fn welchs_test_of_students_data() {
        // t.test(extra ~ group, sleep) of R.
        let found = welch_t(&FIRST, &SECOND).unwrap();
        close(found.mean / found.standard_error, 1.860_8, 1e-4);
        close(found.degrees_of_freedom, 17.776, 1e-3);
        close(found.p_value(), 0.079_39, 1e-5);
        close(found.interval().low, -0.205_483_2, 1e-6);
        close(found.interval().high, 3.365_483_2, 1e-6);
    }

    #[test]
    fn a_small_group_without_spread_does_not_shrink_the_error() {
        // Three equal runs against eight of which two collapsed: variances 0 and, by hand,
        // (6·0.15² + 2·0.45²)/7.
        let other = [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.0, 0.0];
        let found = welch_t(&other, &[0.6; 3]).unwrap();
        let variance = (6.0 * 0.15f64.powi(2) + 2.0 * 0.45f64.powi(2)) / 7.0;
        let common = 7.0 * variance / 9.0 * (1.0 / 8.0 + 1.0 / 3.0);
        close(found.standard_error, common.sqrt(), 1e-12);
        close(found.degrees_of_freedom, 7.0, 1e-9);
        // With the larger variance in the smaller group Welch's error is the larger one.
        let wide = welch_t(&[0.0, 0.5, 1.0], &[0.60, 0.61, 0.62, 0.63, 0.64, 0.65]).unwrap();
        close(wide.standard_error, (0.25f64 / 3.0 + 0.000_35 / 6.0).sqrt(), 1e-12);
    }

    #[test]
    fn groups_that_cannot_be_tested_are_rejected() {
        let two = [0.1, 0.2];
        assert_eq!(paired_t(&two, &two), Err(DifferenceError::TooFew { found: 2 }));
        assert_eq!(welch_t(&FIRST, &two), Err(DifferenceError::TooFew { found: 2 }));
        let lengths = DifferenceError::Lengths { before: 10, after: 2 };
        assert_eq!(paired_t(&FIRST, &two), Err(lengths));
        let infinite = [0.1, f64::INFINITY, 0.2];
        let error = DifferenceError::NotFinite { position: 1, value: f64::INFINITY };
        assert_eq!(paired_t(&infinite, &[0.0; 3]), Err(error.clone()));
        assert_eq!(welch_t(&[0.0, 1.0, 2.0], &infinite), Err(error));
    }

    #[test]
    fn equal_differences_are_no_spread_also_after_rounding() {
        assert_eq!(paired_t(&FIRST, &FIRST), Err(DifferenceError::NoSpread { mean: 0.0 }));
        // In binary the three differences of 0.1 are not equal.
        let (before, after) = ([0.1, 0.2, 0.7], [0.2, 0.3, 0.8]);
        assert!(after[0] - before[0] != after[2] - before[2]);
        let error = paired_t(&before, &after).unwrap_err();
        assert!(matches!(error, DifferenceError::NoSpread { mean } if (mean - 0.1).abs() < 1e-12));
        let flat = welch_t(&[0.5; 3], &[0.75; 4]);
        assert_eq!(flat, Err(DifferenceError::NoSpread { mean: 0.25 }));
        // A spread of one task in a hundred thousand is real.
        assert!(paired_t(&[0.5; 3], &[0.5, 0.5, 0.500_01]).is_ok());
    }
}
