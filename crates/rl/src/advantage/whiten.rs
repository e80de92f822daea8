//! Whitening: mean 0 and deviation 1 over all tokens of a batch.
//!
//! As a step of other estimators, and as an estimator of its own for credit that is already an
//! advantage. Statistics are over tokens, so long rows weigh more. The epsilons are verl's.

use serde::{Deserialize, Serialize};

use super::grouping::Grouping;
use super::{AdvantageError, Advantages, Batch, GroupOver};
use crate::Rows;
use crate::aggregate::COUNT_EPSILON;

/// Whitening has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhitenConfig {}

/// `A = whiten(credit)`, of tokens where the credit works token by token, else of rows. Of
/// credit that is a return it is REINFORCE with the batch's mean as baseline.
///
/// # Errors
/// If a score is not finite or fewer than two tokens are trained on.
pub fn advantages(batch: &Batch) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, GroupOver::Rows)?;
    let credit = batch.token_credit()?;
    let white = whiten(&credit, batch.rows)?;
    let counters = grouping.counters_without_comparison(&white, batch.rows);
    Ok(Advantages::of_tokens(white, credit, batch, counters))
}

/// Added to the variance before its root is taken.
const VARIANCE_EPSILON: f64 = 1e-8;

/// `(x − mean) / sqrt(var + 1e-8)` over the tokens inside the mask, 0 outside it.
///
/// The mean divides by `n + 1e-8`; the variance is that mean of the squared distances times
/// `n / (n − 1)`.
///
/// # Errors
/// With fewer than two tokens there is no variance.
pub fn whiten(values: &[f64], rows: &Rows) -> Result<Vec<f64>, AdvantageError> {
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
    fn as_an_estimator_it_takes_tokens_where_there_are_some() {
        let rows = Rows::dense(&[1, 2]);
        let plain = Batch::of_outcomes(&rows, &[2.0, -1.0], &[0, 1], &[0, 1]);
        let a = advantages(&plain).unwrap();
        assert_eq!(a.per_token, whiten(&[2.0, -1.0, -1.0], &rows).unwrap());
        assert_eq!(a.counters.singletons, 0, "nothing is compared within groups");
        let tokens = [3.0, 1.0, -2.0];
        let fine = advantages(&Batch { token_credit: Some(&tokens), ..plain }).unwrap();
        assert_eq!(fine.per_token, whiten(&tokens, &rows).unwrap());
        assert_eq!(fine.returns(), tokens);
    }

    #[test]
    fn one_token_has_no_variance() {
        let error = whiten(&[1.0], &Rows::dense(&[1])).unwrap_err();
        assert_eq!(error, AdvantageError::TooFewTokens { tokens: 1 });
    }
}
