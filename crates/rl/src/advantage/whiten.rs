//! Whitening: mean 0 and deviation 1 over all tokens of a batch.
//!
//! Used as a step of other estimators, and as an estimator for credit that is already an advantage.
//! Statistics are over tokens, so long rows weigh more. The epsilons are verl's. Comparison group:
//! none; a token is compared with all tokens of the batch.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Estimator, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::advantage::whitening::whiten;
use crate::error::AdvantageError;

/// Whitening has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhitenConfig {}

impl Estimator for WhitenConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(batch)
    }
}

/// `A = whiten(credit)`, per token for token-level credit, else per row. For credit that is a
/// return this is REINFORCE with the batch mean as baseline.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, GroupOver::Rows)?;
    let credit = batch.token_credit()?;
    let white = whiten(&credit, batch.rows, None);
    let counters = grouping.counters_without_comparison(&white, batch.rows);
    Ok(Advantages::of_tokens(white, credit, batch, counters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn token_level_credit_is_used_if_present() {
        let rows = Rows::dense(&[1, 2]);
        let plain = AdvantageInputs::of_outcomes(&rows, &[2.0, -1.0], &[0, 1], &[0, 1]);
        let a = advantages(&plain).unwrap();
        assert_eq!(a.per_token, whiten(&[2.0, -1.0, -1.0], &rows, None));
        assert_eq!(a.counters.singletons, 0, "nothing is compared within groups");
        let tokens = [3.0, 1.0, -2.0];
        let fine = advantages(&AdvantageInputs { token_credit: Some(&tokens), ..plain }).unwrap();
        assert_eq!(fine.per_token, whiten(&tokens, &rows, None));
        assert_eq!(fine.returns(), tokens);
    }

    #[test]
    fn a_batch_of_equal_returns_has_no_variance() {
        let rows = Rows::dense(&[1, 2, 3]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[0.1; 3], &[0, 0, 1], &[0, 1, 2]);
        let a = advantages(&batch).unwrap();
        assert_eq!(a.per_row, [0.0; 3]);
        assert_eq!((a.counters.groups, a.counters.zero_variance), (2, 2));
    }
}
