//! How many runs a comparison needs.

use crate::difference::FEWEST_RUNS;
use crate::student::student_quantile;

/// More runs than this are reported as no answer.
const MOST: u64 = 1_000_000;

/// The smallest number of runs on each side (of pairs, if `paired`) with which a two-sided test at
/// 5 % finds a true difference in mean of `difference` with probability `power`: the smallest n of
/// at least [`FEWEST_RUNS`] with `n ≥ ((t_{0.975,f} + t_{power,f}) s/δ)²`, where f = n − 1 and s is
/// the standard deviation `std` of the differences for pairs; for independent groups f = 2n − 2 and
/// s = √2 `std` with the standard deviation of one run. This iteration of the normal formula
/// (Guenther 1981, *Sample Size Formulas for Normal Theory T Tests*) agrees with the noncentral t
/// to within one run.
///
/// `None` if more than a million are needed, or for numbers that make no sense: `std` negative or
/// not finite, `difference` 0 or not finite, `power` not between 0.5 and 1.
///
/// ```
/// // A difference of one standard deviation.
/// assert_eq!(leyden_stats::seeds_needed(1.0, true, 1.0, 0.8), Some(10));
/// assert_eq!(leyden_stats::seeds_needed(1.0, false, 1.0, 0.8), Some(17));
/// ```
pub fn seeds_needed(std: f64, paired: bool, difference: f64, power: f64) -> Option<u64> {
    let sensible = std.is_finite() && std >= 0.0 && difference.is_finite() && difference != 0.0;
    if !sensible || !(0.5..1.0).contains(&power) {
        return None;
    }
    let spread = if paired { std } else { 2f64.sqrt() * std };
    let suffices = |n: u64| {
        let n = n as f64;
        let freedom = if paired { n - 1.0 } else { 2.0 * n - 2.0 };
        let sum = student_quantile(0.975, freedom)
            .zip(student_quantile(power, freedom))
            .map_or(f64::INFINITY, |(error, power)| error + power);
        n >= (sum * spread / difference).powi(2)
    };
    // The condition is monotone in n: its right side falls.
    let (mut below, mut above) = (FEWEST_RUNS as u64 - 1, FEWEST_RUNS as u64);
    while !suffices(above) {
        if above >= MOST {
            return None;
        }
        (below, above) = (above, (2 * above).min(MOST));
    }
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if suffices(middle) { above = middle } else { below = middle }
    }
    Some(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_noncentral_t() {
        // TTestPower and TTestIndPower of statsmodels, solved for n and rounded up: 33.37, 63.77,
        // 9.94, 16.71.
        assert_eq!(seeds_needed(1.0, true, 0.5, 0.8), Some(34));
        assert_eq!(seeds_needed(1.0, false, 0.5, 0.8), Some(64));
        assert_eq!(seeds_needed(1.0, true, -1.0, 0.8), Some(10));
        assert_eq!(seeds_needed(1.0, false, 1.0, 0.8), Some(17));
        // A large difference still needs the fewest that are tested.
        assert_eq!(seeds_needed(0.0, true, 0.02, 0.8), Some(3));
    }

    #[test]
    fn senseless_questions_have_no_answer() {
        for (std, difference, power) in [
            (f64::NAN, 0.1, 0.8),
            (-1.0, 0.1, 0.8),
            (1.0, 0.0, 0.8),
            (1.0, 0.1, 1.0),
            (1.0, 0.1, 0.3),
            (1.0, 1e-9, 0.8),
        ] {
            assert_eq!(seeds_needed(std, true, difference, power), None);
        }
    }
}
