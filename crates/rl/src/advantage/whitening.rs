//! Whitening of flat arrays, as a step of estimators.

use crate::advantage::batch::Compat;
use crate::aggregate::COUNT_EPSILON;
use crate::rows::Rows;

/// Added to the variance before taking the square root.
const VARIANCE_EPSILON: f64 = 1e-8;

/// `(x − mean) / sqrt(var + 1e-8)` over the tokens inside the mask, 0 outside it.
///
/// The mean divides by `n + 1e-8`; the variance is that mean of the squared distances times
/// `n / (n − 1)`. Both are verl's.
///
/// Equal values give exactly 0, and so do fewer than two tokens, which have no variance. Under
/// verl's conventions equal values keep what the epsilon of the count leaves of them, about
/// `1e-4 x / n`. (verl refuses to whiten fewer than two tokens; here they get 0 there, too.)
pub(crate) fn whiten(values: &[f64], rows: &Rows, compat: Option<Compat>) -> Vec<f64> {
    let mut white = vec![0.0; rows.tokens()];
    let count = rows.active_tokens();
    if count < 2 || (compat.is_none() && are_equal(rows.active().map(|t| values[t]))) {
        return white;
    }
    let n = count as f64;
    let mean = rows.active().map(|t| values[t]).sum::<f64>() / (n + COUNT_EPSILON);
    let squares: f64 = rows.active().map(|t| (values[t] - mean).powi(2)).sum();
    let variance = squares / (n + COUNT_EPSILON) * (n / (n - 1.0));
    let scale = 1.0 / (variance + VARIANCE_EPSILON).sqrt();
    for t in rows.active() {
        white[t] = (values[t] - mean) * scale;
    }
    white
}

/// Whether all values are equal; true without values, false with a NaN.
fn are_equal(mut values: impl Iterator<Item = f64>) -> bool {
    values.next().is_none_or(|first| !first.is_nan() && values.all(|value| value == first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_has_mean_zero_and_deviation_one() {
        let rows = Rows::new(&[3, 2], vec![true, false, true, true, true]).unwrap();
        let white = whiten(&[1.0, f64::NAN, 4.0, -2.0, 7.0], &rows, None);
        assert_eq!(white[1], 0.0);
        let sum: f64 = white.iter().sum();
        let squares: f64 = white.iter().map(|x| x * x).sum();
        assert!(sum.abs() < 1e-7, "{sum}");
        assert!((squares / 3.0 - 1.0).abs() < 1e-7, "{squares}");
    }

    #[test]
    fn equal_values_give_exactly_zero_except_under_verl_conventions() {
        let rows = Rows::new(&[4], vec![true, true, false, true]).unwrap();
        for value in [0.1, 1.0, -3.0] {
            let values = [value, value, f64::NAN, value];
            assert_eq!(whiten(&values, &rows, None), [0.0; 4]);
            let verl = whiten(&values, &rows, Some(Compat::Verl));
            assert!((verl[0] / (value * 1e-4 / 3.0) - 1.0).abs() < 1e-3, "{verl:?}");
        }
    }

    #[test]
    fn fewer_than_two_tokens_have_no_variance() {
        for compat in [None, Some(Compat::Verl)] {
            assert_eq!(whiten(&[], &Rows::dense(&[]), compat), [0.0; 0]);
            assert_eq!(whiten(&[3.0], &Rows::dense(&[1]), compat), [0.0]);
            let masked = Rows::new(&[3], vec![false, true, false]).unwrap();
            assert_eq!(whiten(&[f64::NAN, 3.0, f64::NAN], &masked, compat), [0.0; 3]);
        }
    }

    #[test]
    fn a_nan_inside_the_mask_is_visible() {
        let white = whiten(&[f64::NAN, f64::NAN], &Rows::dense(&[2]), None);
        assert!(white.iter().all(|x| x.is_nan()), "{white:?}");
    }
}
