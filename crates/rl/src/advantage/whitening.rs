//! Whitening of flat arrays, as a step of estimators.

use crate::aggregate::COUNT_EPSILON;
use crate::error::AdvantageError;
use crate::rows::Rows;

/// Added to the variance before taking the square root.
const VARIANCE_EPSILON: f64 = 1e-8;

/// `(x − mean) / sqrt(var + 1e-8)` over the tokens inside the mask, 0 outside it.
///
/// The mean divides by `n + 1e-8`; the variance is that mean of the squared distances times
/// `n / (n − 1)`.
///
/// # Errors
/// If there are fewer than two tokens.
pub(crate) fn whiten(values: &[f64], rows: &Rows) -> Result<Vec<f64>, AdvantageError> {
    let tokens = rows.active_tokens();
    if tokens < 2 {
        return Err(AdvantageError::TooFewTokens { tokens });
    }
    let n = tokens as f64;
    let mean = rows.active().map(|t| values[t]).sum::<f64>() / (n + COUNT_EPSILON);
    let squares: f64 = rows.active().map(|t| (values[t] - mean).powi(2)).sum();
    let variance = squares / (n + COUNT_EPSILON) * (n / (n - 1.0));
    let scale = 1.0 / (variance + VARIANCE_EPSILON).sqrt();
    let mut white = vec![0.0; rows.tokens()];
    for t in rows.active() {
        white[t] = (values[t] - mean) * scale;
    }
    Ok(white)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_has_mean_zero_and_deviation_one() {
        let rows = Rows::new(&[3, 2], vec![true, false, true, true, true]).unwrap();
        let white = whiten(&[1.0, f64::NAN, 4.0, -2.0, 7.0], &rows).unwrap();
        assert_eq!(white[1], 0.0);
        let sum: f64 = white.iter().sum();
        let squares: f64 = white.iter().map(|x| x * x).sum();
        assert!(sum.abs() < 1e-7, "{sum}");
        assert!((squares / 3.0 - 1.0).abs() < 1e-7, "{squares}");
    }

    #[test]
    fn one_token_has_no_variance() {
        let error = whiten(&[1.0], &Rows::dense(&[1])).unwrap_err();
        assert_eq!(error, AdvantageError::TooFewTokens { tokens: 1 });
    }
}
