//! Probability ratios, single and in blocks.

use std::ops::Range;

/// Log-ratios beyond this are clamped before exponentiation, as in verl.
pub(crate) const LOG_RATIO_LIMIT: f64 = 20.0;

/// A probability ratio and its derivative with respect to the new log-probability.
pub(crate) struct Ratio {
    /// The logarithm, clamped.
    pub log: f64,
    pub value: f64,
    pub slope: f64,
}

impl Ratio {
    pub fn of(logp_new: f64, logp_old: f64) -> Self {
        let log = logp_new - logp_old;
        let clamped = log.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
        let value = clamped.exp();
        Self { log: clamped, value, slope: if clamped == log { value } else { 0.0 } }
    }
}

/// Tokens per block.
pub(crate) const BLOCK: usize = 64;

/// Splits a range of tokens into blocks.
pub(crate) fn blocks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(BLOCK).map(move |start| start..end.min(start + BLOCK))
}

/// The ratios of a block of tokens: equal to [`Ratio`] within a few ulps, in a third of the time.
pub(crate) struct Ratios {
    /// The logarithms, clamped.
    pub log: [f64; BLOCK],
    pub value: [f64; BLOCK],
    pub slope: [f64; BLOCK],
}

impl Ratios {
    /// Default ratios, to be filled by [`Ratios::set`].
    pub fn new() -> Self {
        Self { log: [0.0; BLOCK], value: [1.0; BLOCK], slope: [1.0; BLOCK] }
    }

    /// Sets the first entries to the ratios of the given tokens; the others are unchanged.
    ///
    /// # Panics
    /// If there are more tokens than a block has, or the lengths differ.
    #[inline(always)]
    pub fn set(&mut self, logp_new: &[f64], logp_old: &[f64]) {
        let n = logp_new.len();
        assert_eq!(n, logp_old.len(), "two log-probabilities of each token");
        let (log, value, slope) = (&mut self.log[..n], &mut self.value[..n], &mut self.slope[..n]);
        for i in 0..n {
            let unclamped = logp_new[i] - logp_old[i];
            log[i] = unclamped.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
            value[i] = exp_of_clamped(log[i]);
            slope[i] = if log[i] == unclamped { value[i] } else { 0.0 };
        }
    }
}

/// `exp(x)` for `|x|` up to a few hundred, within a few ulps; NaN for NaN.
///
/// The C library's `exp` is as exact and handles all numbers, but costs a function call each. This
/// one is straight-line arithmetic that compilers vectorise: with `x = k ln 2 + r`,
/// `|r| ≤ ln 2 / 2`, it is `2^k` times Taylor's polynomial of degree 13, whose remainder there is
/// below `2^-57`.
#[inline(always)]
fn exp_of_clamped(x: f64) -> f64 {
    /// Adding and subtracting it rounds to an integer, which is in the lowest bits of the sum.
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52
    /// ln 2 in two parts: products of the first with small integers are exact.
    const LN_2: (f64, f64) = (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10);
    const TAYLOR: [f64; 14] = {
        let mut terms = [1.0; 14];
        let mut n = 1;
        while n < 14 {
            terms[n] = terms[n - 1] / n as f64;
            n += 1;
        }
        terms
    };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (x - k * LN_2.0) - k * LN_2.1;
    // Four independent sums, by powers of r^4, for instruction-level parallelism.
    let (square, fourth) = (r * r, (r * r) * (r * r));
    let four =
        |n: usize| (TAYLOR[n] + TAYLOR[n + 1] * r) + (TAYLOR[n + 2] + TAYLOR[n + 3] * r) * square;
    let high = four(8) + (TAYLOR[12] + TAYLOR[13] * r) * fourth;
    let sum = four(0) + (four(4) + high * fourth) * fourth;
    // 2^k: k becomes the exponent.
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    sum * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_agree_with_single_ratios() {
        let mut new: Vec<f64> = (0..59).map(|i| f64::from(i) * -0.9).collect();
        let mut old: Vec<f64> = (0..59).map(|i| f64::from(i % 7) * -8.0).collect();
        // Exactly at the limits, where the slope is still non-zero.
        new.extend([-1.0, -1.0 - LOG_RATIO_LIMIT]);
        old.extend([-1.0 - LOG_RATIO_LIMIT, -1.0]);
        let mut ratios = Ratios::new();
        ratios.set(&new, &old);
        for i in 0..61 {
            let one = Ratio::of(new[i], old[i]);
            assert_eq!(ratios.log[i], one.log);
            let near = |a: f64, b: f64| (a - b).abs() <= 4.0 * f64::EPSILON * b.abs();
            assert!(near(ratios.value[i], one.value), "{} {}", ratios.value[i], one.value);
            assert!(near(ratios.slope[i], one.slope), "{} {}", ratios.slope[i], one.slope);
        }
        let mut none = Ratios::new();
        none.set(&[f64::NAN, f64::NEG_INFINITY], &[0.0, -1.0]);
        assert!(none.value[0].is_nan());
        assert_eq!((none.log[1], none.slope[1]), (-LOG_RATIO_LIMIT, 0.0));
    }

    #[test]
    fn blocks_cover_a_range() {
        let sizes = |range| blocks(range).map(|block| block.len()).collect::<Vec<_>>();
        assert_eq!(sizes(3..140), [64, 64, 9]);
        assert_eq!(sizes(5..5), [0; 0]);
        assert_eq!(blocks(3..140).last(), Some(131..140));
    }
}
