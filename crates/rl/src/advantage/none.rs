//! No estimator: the credit is the advantage.
//!
//! For credit that is already an advantage (GiGPO, Monte Carlo values), and for REINFORCE
//! without a baseline (Williams 1992), whose advantage is the return. Comparison group: none.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Estimator, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::error::AdvantageError;

/// The estimator has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoneConfig {}

impl Estimator for NoneConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(batch)
    }
}

/// `A = credit`, per token for token-level credit, else per row.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, GroupOver::Rows)?;
    let per_token = batch.token_credit()?;
    let counters = grouping.counters_without_comparison(&per_token, batch.rows);
    Ok(Advantages::of_tokens(per_token.clone(), per_token, batch, counters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;
    use crate::advantage::GroupCounters;

    #[test]
    fn credit_is_the_advantage() {
        let rows = Rows::new(&[2, 1, 1], vec![true, false, true, true]).unwrap();
        let batch = AdvantageInputs::of_outcomes(&rows, &[0.5, 0.0, -1.0], &[0, 1, 0], &[0, 1, 2]);
        let a = advantages(&batch).unwrap();
        assert_eq!(a.per_token, [0.5, 0.0, 0.0, -1.0]);
        assert_eq!(a.per_row, [0.5, 0.0, -1.0]);
        assert_eq!(a.counters, GroupCounters { groups: 2, zero_variance: 1, singletons: 0 });
        let tokens = [0.25, 0.0, 1.0, 2.0];
        let fine = advantages(&AdvantageInputs { token_credit: Some(&tokens), ..batch }).unwrap();
        assert_eq!(fine.per_token, tokens);
    }
}
