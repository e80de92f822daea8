//! OPO: the score minus the length-weighted mean of its group.
//!
//! Hao et al., *On-Policy RL with Optimal Reward Baseline*, arXiv 2505.23585: the
//! variance-minimising baseline weighs each sample by the squared norm of its gradient, which
//! grows with its number of tokens.
//!
//! Comparison group: the rollouts of a task, two or more; the length of a rollout is that of all its
//! rows. `group_over = "rows"` and verl's conventions compare rows. If all calls of a rollout earn
//! the same, both give the same baseline.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{
    AdvantageInputs, Advantages, Compat, Estimator, GroupOver, RolloutKeys,
};
use crate::advantage::grouping::{Comparison, Grouping};
use crate::error::AdvantageError;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "RolloutKeys")]
pub struct OpoConfig {
    /// Rollouts by default; rows under verl's conventions.
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Default for OpoConfig {
    fn default() -> Self {
        RolloutKeys::default().into()
    }
}

impl From<RolloutKeys> for OpoConfig {
    fn from(keys: RolloutKeys) -> Self {
        Self { group_over: keys.group_over(), compat: keys.compat }
    }
}

impl Estimator for OpoConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn takes_groups_of_one(&self) -> bool {
        self.compat.is_some()
    }

    fn of_verl(name: &str) -> Option<Self> {
        let compat = Some(Compat::Verl);
        (name == "opo").then_some(Self { group_over: GroupOver::Rows, compat })
    }
}

/// `A = score − (Σ n_i score_i) / (Σ n_i)` with n_i tokens inside the mask; no division by the
/// deviation. A group of one gets 0, under verl's conventions its score. A group without tokens
/// gets its scores, which have no effect on training.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &OpoConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let per_row = grouping.advantages(batch, config.compat, 1.0, |group| {
        let tokens: usize = group.entries.iter().map(|entry| entry.tokens).sum();
        let sum: f64 = group.entries.iter().map(|entry| entry.tokens as f64 * entry.score).sum();
        let baseline = if tokens == 0 { 0.0 } else { sum / tokens as f64 };
        vec![Comparison { baseline, divisor: 1.0 }; group.entries.len()]
    });
    Ok(Advantages::of_rows(per_row, batch, grouping.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_baseline_is_weighted_by_length() {
        let rows = Rows::dense(&[1, 3]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0, 0.0], &[0, 0], &[0, 1]);
        let a = advantages(&OpoConfig::default(), &batch).unwrap();
        assert_eq!(a.per_row, [0.75, -0.25]);
    }

    #[test]
    fn the_length_of_a_rollout_is_that_of_its_rows() {
        let rows = Rows::dense(&[1, 2, 1]);
        let run = |scores: &[f64; 3], config: &OpoConfig| {
            let batch = AdvantageInputs::of_outcomes(&rows, scores, &[0; 3], &[0, 0, 1]);
            advantages(config, &batch).unwrap().per_row
        };
        let by_row = OpoConfig { group_over: GroupOver::Rows, compat: None };
        // Three tokens with 1, one with 0.
        let equal = run(&[1.0, 1.0, 0.0], &OpoConfig::default());
        assert_eq!(equal, [0.25, 0.25, -0.75]);
        assert_eq!(run(&[1.0, 1.0, 0.0], &by_row), equal);
        // Three tokens with the mean of 0 and 1, one with 0; over rows two tokens with 1.
        let different = [0.0, 1.0, 0.0];
        assert_eq!(run(&different, &OpoConfig::default()), [-0.375, 0.625, -0.375]);
        assert_eq!(run(&different, &by_row), [-0.5, 0.5, -0.5]);
    }
}
