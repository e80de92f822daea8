//! Pass@k: only the best of a group is reinforced, by its lead over the second best.
//!
//! Tang et al., *Optimizing Language Models for Inference Time Objectives using Reinforcement
//! Learning*, arXiv 2503.19595.
//!
//! Comparison group: the rollouts of a task, two or more; `group_over = "rows"` compares rows.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Compat, Estimator, GroupOver};
use crate::advantage::grouping::{Group, Grouping};
use crate::error::{AdvantageError, ConfigError, not_negative};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassKConfig {
    /// Whether to divide by the group's standard deviation.
    pub divide_by_std: bool,
    /// Added to the standard deviation.
    pub epsilon: f64,
    /// Rollouts by default: over rows, the second best would be another call of the best rollout,
    /// so agents with several calls would never have a lead.
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Default for PassKConfig {
    fn default() -> Self {
        Self { divide_by_std: true, epsilon: 1e-6, group_over: GroupOver::Rollouts, compat: None }
    }
}

impl Estimator for PassKConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        not_negative("advantage.epsilon", self.epsilon)
    }

    fn of_verl(name: &str) -> Option<Self> {
        let compat = Some(Compat::Verl);
        let known = Self { group_over: GroupOver::Rows, compat, ..Self::default() };
        (name == "grpo_passk").then_some(known)
    }
}

/// `A = (best − second best) / (std + ε)` for the best of each group, 0 for the others.
///
/// If the best two are equal, both get 0.
///
/// # Errors
/// If a score is not finite; under verl's conventions also if a group has one entry, which
/// otherwise gets 0.
pub fn advantages(
    config: &PassKConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let mut per_row = vec![0.0; batch.rows.len()];
    for group in &grouping.groups {
        if group.is_single() {
            match config.compat {
                Some(Compat::Verl) => return Err(AdvantageError::Singleton { group: group.id }),
                None => continue,
            }
        }
        let (best, lead) = best_and_lead(group);
        let std = group.sample_std();
        let divisor = if config.divide_by_std { std + config.epsilon } else { 1.0 };
        for &row in &group.entries[best].rows {
            per_row[row] = if lead == 0.0 { 0.0 } else { lead / divisor };
        }
    }
    Ok(Advantages::of_rows(per_row, batch, grouping.counters()))
}

/// The best entry of a group of two or more, and its lead over the second best.
fn best_and_lead(group: &Group) -> (usize, f64) {
    let mut order: Vec<usize> = (0..group.entries.len()).collect();
    order.sort_by(|&a, &b| group.entries[b].score.total_cmp(&group.entries[a].score));
    (order[0], group.entries[order[0]].score - group.entries[order[1]].score)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn only_the_best_is_reinforced() {
        let rows = Rows::dense(&[1; 5]);
        let scores = [0.5, 2.0, 1.0, 1.0, 1.0];
        let batch =
            AdvantageInputs::of_outcomes(&rows, &scores, &[0, 0, 0, 1, 1], &[0, 1, 2, 3, 4]);
        let plain = PassKConfig { divide_by_std: false, ..PassKConfig::default() };
        assert_eq!(advantages(&plain, &batch).unwrap().per_row, [0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    /// Three rollouts of two calls, one of which is correct.
    #[test]
    fn calls_of_the_best_do_not_compete_with_each_other() {
        let rows = Rows::dense(&[1; 6]);
        let scores = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        let batch = AdvantageInputs::of_outcomes(&rows, &scores, &[0; 6], &[0, 0, 1, 1, 2, 2]);
        let plain = PassKConfig { divide_by_std: false, ..PassKConfig::default() };
        assert_eq!(advantages(&plain, &batch).unwrap().per_row, scores);
        let rows = PassKConfig { group_over: GroupOver::Rows, ..plain };
        assert_eq!(advantages(&rows, &batch).unwrap().per_row, [0.0; 6]);
    }

    #[test]
    fn a_group_of_one_is_zero_or_refused() {
        let rows = Rows::dense(&[1]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0], &[6], &[0]);
        assert_eq!(advantages(&PassKConfig::default(), &batch).unwrap().per_row, [0.0]);
        let verl = PassKConfig { compat: Some(Compat::Verl), ..PassKConfig::default() };
        assert_eq!(advantages(&verl, &batch), Err(AdvantageError::Singleton { group: 6 }));
    }
}
