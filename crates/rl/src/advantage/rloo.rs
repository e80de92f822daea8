//! RLOO: the score minus the mean of the others (leave one out).
//!
//! Ahmadian et al., *Back to Basics*, arXiv 2402.14740. The baseline excludes the sample itself, so
//! the gradient is unbiased.
//!
//! Comparison group: the rollouts of a task, two or more. A sample is a rollout: over rows, the
//! other calls of the same rollout would be part of the baseline, which is then not independent of
//! the sample. `group_over = "rows"` and verl's conventions compare rows.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{
    AdvantageInputs, Advantages, Compat, Estimator, GroupOver, RolloutKeys,
};
use crate::advantage::grouping::{Comparison, Grouping};
use crate::error::AdvantageError;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "RolloutKeys")]
pub struct RlooConfig {
    /// Rollouts by default; rows under verl's conventions.
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Default for RlooConfig {
    fn default() -> Self {
        RolloutKeys::default().into()
    }
}

impl From<RolloutKeys> for RlooConfig {
    fn from(keys: RolloutKeys) -> Self {
        Self { group_over: keys.group_over(), compat: keys.compat }
    }
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

/// `A_i = score_i − (Σ_{j≠i} score_j) / (n − 1)` over the n entries of a group. The baseline of a
/// rollout's rows is the mean score of the other rollouts.
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

    /// Rollout 0 has three calls with different returns, rollouts 1 and 2 have one call each.
    #[test]
    fn by_default_the_calls_of_a_rollout_are_not_in_its_baseline() {
        let rows = Rows::dense(&[1; 5]);
        let run = |config: &RlooConfig, own: [f64; 3]| {
            let scores = [own[0], own[1], own[2], 0.5, 0.0];
            let batch = AdvantageInputs::of_outcomes(&rows, &scores, &[0; 5], &[0, 0, 0, 1, 2]);
            advantages(config, &batch).unwrap().per_row
        };
        // The others of rollout 0 are 0.5 and 0; its own score is the mean of its calls.
        let plain = run(&RlooConfig::default(), [0.25, 0.5, 0.75]);
        assert_eq!(plain, [0.0, 0.25, 0.5, 0.25, -0.5]);
        // The baseline of a call does not change with its siblings; over rows it does.
        let changed = run(&RlooConfig::default(), [0.25, 5.0, -2.25]);
        assert_eq!(changed[0], plain[0]);
        let by_row = RlooConfig { group_over: GroupOver::Rows, ..RlooConfig::default() };
        assert_ne!(run(&by_row, [0.25, 4.0, 0.5])[0], run(&by_row, [0.25, 0.5, 0.75])[0]);
    }
}
