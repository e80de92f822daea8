//! RLOO: the score minus the mean of the others (leave one out).
//!
//! Ahmadian et al., *Back to Basics*, arXiv 2402.14740. The baseline excludes the sample itself, so
//! the gradient is unbiased.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Compat, Estimator, GroupOver};
use crate::advantage::grouping::{Comparison, Grouping};
use crate::error::AdvantageError;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RlooConfig {
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Estimator for RlooConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn takes_groups_of_one(&self) -> bool {
        self.compat.is_some()
    }

    fn of_verl(name: &str) -> Option<Self> {
        let compat = Some(Compat::Verl);
        (name == "rloo").then_some(Self { group_over: GroupOver::Rows, compat })
    }
}

/// `A_i = score_i − (Σ_{j≠i} score_j) / (n − 1)`.
///
/// A group of one gets 0; under verl's conventions its score.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &RlooConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let per_row = grouping.advantages(batch, config.compat, 1.0, |group| {
        let sum: f64 = group.entries.iter().map(|entry| entry.score).sum();
        let others = (group.entries.len() - 1) as f64;
        let baseline = |score: f64| (sum - score) / others;
        let compare = |score| Comparison { baseline: baseline(score), divisor: 1.0 };
        group.entries.iter().map(|entry| compare(entry.score)).collect()
    });
    Ok(Advantages::of_rows(per_row, batch, grouping.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_baseline_is_the_mean_of_the_others() {
        let rows = Rows::dense(&[1; 4]);
        let batch = AdvantageInputs::of_outcomes(
            &rows,
            &[1.0, 0.0, 0.5, 4.0],
            &[0, 0, 0, 1],
            &[0, 1, 2, 3],
        );
        let ours = advantages(&RlooConfig::default(), &batch).unwrap();
        assert_eq!(ours.per_row, [0.75, -0.75, 0.0, 0.0]);
        let verl = RlooConfig { compat: Some(Compat::Verl), ..RlooConfig::default() };
        assert_eq!(advantages(&verl, &batch).unwrap().per_row, [0.75, -0.75, 0.0, 4.0]);
    }
}
