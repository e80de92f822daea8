//! Comparisons of two policies on the same items.
//!
//! Items differ far more than policies do; an item's contribution to both sides cancels in the
//! difference. Graded rewards use the bootstrap of the mean difference, binary correctness
//! McNemar's test.

use leyden_core::SeedTree;

use crate::interval::{Interval, bootstrap_interval};
use crate::numbers::mean;

/// Why two series cannot be compared item by item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairedError {
    #[error("a paired comparison needs the same items on both sides: {before} and {after} differ")]
    Lengths { before: usize, after: usize },
    #[error("a paired comparison needs at least one item and one resample")]
    Empty,
}

/// A paired difference.
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

/// The mean difference `after − before` of the same items in the same order, with a paired
/// percentile bootstrap interval.
///
/// # Errors
/// If the series differ in length, or there are no items or no resamples.
///
/// ```
/// use leyden_core::SeedTree;
///
/// // Every item improved: the difference is significant despite the spread of the items.
/// let (before, after) = ([0.0, 5.0, 90.0, 40.0], [1.0, 7.0, 91.0, 42.0]);
/// let difference = leyden_stats::paired_bootstrap(&before, &after, 500, SeedTree::new(1)).unwrap();
/// assert_eq!(difference.mean, 1.5);
/// assert!(difference.is_significant());
/// ```
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

/// Differences in correctness between two policies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Items that only the first answered correctly.
    pub only_before: usize,
    /// Items that only the second answered correctly.
    pub only_after: usize,
    /// Probability of a difference at least this large if both are equally good; exact and
    /// two-sided.
    pub p_value: f64,
}

/// McNemar's exact test (McNemar 1947): of the n items on which the two disagree, the number that
/// one of them answers correctly is binomial with probability ½ if they are equally good.
/// `p = min(1, 2 P(X ≤ min))`; 1 without disagreements.
///
/// # Errors
/// If the series differ in length or are empty.
///
/// ```
/// let before = [true, false, false, false, false, false];
/// let after = [true, true, true, true, true, true];
/// let test = leyden_stats::mcnemar(&before, &after).unwrap();
/// assert_eq!((test.only_before, test.only_after), (0, 5));
/// assert_eq!(test.p_value, 2.0 / 32.0);
/// ```
pub fn mcnemar(before: &[bool], after: &[bool]) -> Result<McNemar, PairedError> {
    if before.len() != after.len() {
        return Err(PairedError::Lengths { before: before.len(), after: after.len() });
    }
    if before.is_empty() {
        return Err(PairedError::Empty);
    }
    let count = |first: bool, second: bool| {
        before.iter().zip(after).filter(|&(&b, &a)| b == first && a == second).count()
    };
    let (only_before, only_after) = (count(true, false), count(false, true));
    let (n, k) = (only_before + only_after, only_before.min(only_after));
    // Log-probabilities by recurrence, since the first probability underflows for large n.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for i in 1..=k {
        log_term += ((n - i + 1) as f64).ln() - (i as f64).ln();
        tail += log_term.exp();
    }
    Ok(McNemar { only_before, only_after, p_value: (2.0 * tail).min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ours: f64, expected: f64) {
        assert!((ours - expected).abs() < 1e-9, "{ours} instead of {expected}");
    }

    #[test]
    fn pairing_removes_what_items_have_in_common() {
        // Items differ by hundreds; they gain 1 and 2 alternately.
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

    /// Items correct on one side only, and some on which both agree.
    fn disagreements(only_before: usize, only_after: usize) -> McNemar {
        let pairs = [(true, false, only_before), (false, true, only_after), (true, true, 7)];
        let items = pairs.iter().flat_map(|&(b, a, n)| vec![(b, a); n]);
        let (before, after): (Vec<bool>, Vec<bool>) = items.chain([(false, false)]).unzip();
        mcnemar(&before, &after).unwrap()
    }

    #[test]
    fn mcnemar_is_the_binomial_test_of_the_disagreements() {
        let test = disagreements(1, 5);
        assert_eq!((test.only_before, test.only_after), (1, 5));
        close(test.p_value, 2.0 * 7.0 / 64.0);
        // scipy.stats.binomtest(k, n).pvalue of SciPy 1.17.
        close(disagreements(17, 3).p_value, 0.002_576_828_002_929_687_5);
        close(disagreements(40, 60).p_value, 0.056_887_933_640_980_89);
        close(disagreements(5, 5).p_value, 1.0);
        close(disagreements(0, 0).p_value, 1.0);
        // 2^-2000 underflows, the sum does not.
        let many = disagreements(900, 1100).p_value;
        assert!(many > 1e-6 && many < 1e-4, "{many}");
        assert_eq!(mcnemar(&[], &[]), Err(PairedError::Empty));
    }
}
