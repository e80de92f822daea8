//! REINFORCE++-baseline: the score minus the group's mean, whitened over the whole batch.
//!
//! Hu, *REINFORCE++*, arXiv 2501.03262. The mean is the group's, as in GRPO, but the deviation is
//! that of all tokens of the batch, so that a single failure in an easy group is not amplified.
//!
//! Comparison group: all calls of all rollouts of a task, two or more, like GRPO, for the mean; all
//! tokens of the batch for the deviation. `group_over = "rollouts"` takes the mean over rollouts.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Compat, Estimator, GroupOver};
use crate::advantage::grouping::{Comparison, Grouping};
use crate::advantage::whitening::whiten;
use crate::error::AdvantageError;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforcePlusPlusBaselineConfig {
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Estimator for ReinforcePlusPlusBaselineConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn takes_groups_of_one(&self) -> bool {
        self.compat.is_some()
    }

    fn of_verl(name: &str) -> Option<Self> {
        let compat = Some(Compat::Verl);
        let known = Self { group_over: GroupOver::Rows, compat };
        (name == "reinforce_plus_plus_baseline").then_some(known)
    }
}

/// `A = whiten(score − mean)`, whitened over tokens. Before whitening a group of one has 0; under
/// verl's conventions its score.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &ReinforcePlusPlusBaselineConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let centred = grouping.advantages(batch, config.compat, 1.0, |group| {
        let baseline = group.mean();
        vec![Comparison { baseline, divisor: 1.0 }; group.entries.len()]
    });
    let white = whiten(&batch.rows.spread(&centred), batch.rows, config.compat);
    Ok(Advantages::of_tokens(white.clone(), white, batch, grouping.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_deviation_is_the_batch_s() {
        let rows = Rows::dense(&[1; 4]);
        let scores = [1.0, 0.0, 10.0, 8.0];
        let batch = AdvantageInputs::of_outcomes(&rows, &scores, &[0, 0, 1, 1], &[0, 1, 2, 3]);
        let a = advantages(&ReinforcePlusPlusBaselineConfig::default(), &batch).unwrap();
        let std = (2.5_f64 / 3.0).sqrt();
        for (ours, centred) in a.per_row.iter().zip([0.5, -0.5, 1.0, -1.0]) {
            assert!((ours - centred / std).abs() < 1e-7, "{:?}", a.per_row);
        }
    }
}
