//! GRPO: the score minus its group's mean, in standard deviations.
//!
//! Group-relative policy optimisation (Shao et al., *DeepSeekMath*, arXiv 2402.03300). Without the
//! division it is Dr.GRPO (Liu et al., arXiv 2503.20783), which is used with the aggregation
//! `seq-mean-token-sum-norm`.
//!
//! Comparison group: all calls of all rollouts of a task, two or more, as in LightningRL's paper
//! (Agent Lightning, arXiv 2508.03680); `group_over = "rollouts"` compares rollouts. With rollouts
//! and credit that differs between calls, the deviation is that of the rollouts' mean returns: where
//! these nearly agree but the calls do not, advantages are large, so set `divide_by_std = false`.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Compat, Estimator, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::error::{AdvantageError, ConfigError, not_negative};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// Whether to divide by the group's standard deviation; `false` is Dr.GRPO.
    pub divide_by_std: bool,
    /// Added to the standard deviation.
    pub epsilon: f64,
    /// Rows by default, as in LightningRL's paper.
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self { divide_by_std: true, epsilon: 1e-6, group_over: GroupOver::Rows, compat: None }
    }
}

impl Estimator for GrpoConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        not_negative("advantage.epsilon", self.epsilon)
    }

    fn takes_groups_of_one(&self) -> bool {
        self.compat.is_some()
    }

    fn of_verl(name: &str) -> Option<Self> {
        let compat = Some(Compat::Verl);
        let divide_by_std = match name {
            "grpo" => true,
            "grpo_no_std" => false,
            _ => return None,
        };
        Some(Self { divide_by_std, group_over: GroupOver::Rows, compat, ..Self::default() })
    }
}

/// `A = (score − mean) / (std + ε)` with the sample standard deviation (n − 1).
///
/// A group of one gets 0; under verl's conventions it has mean 0 and deviation 1.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &GrpoConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let per_row = grouping.standardised(batch, config.compat, config.divide_by_std, config.epsilon);
    Ok(Advantages::of_rows(per_row, batch, grouping.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;
    use crate::advantage::GroupCounters;

    fn run(
        config: &GrpoConfig,
        scores: &[f64],
        groups: &[usize],
        rollouts: &[usize],
    ) -> Advantages {
        let rows = Rows::dense(&vec![2; scores.len()]);
        advantages(config, &AdvantageInputs::of_outcomes(&rows, scores, groups, rollouts)).unwrap()
    }

    #[test]
    fn scores_are_standardised_within_their_group() {
        let a = run(&GrpoConfig::default(), &[1.0, 5.0, 0.0, 5.0], &[0, 1, 0, 1], &[0, 1, 2, 3]);
        let unit = 0.5 / (0.5_f64.sqrt() + 1e-6);
        assert_eq!(a.per_row, [unit, 0.0, -unit, 0.0]);
        assert_eq!(a.per_token[..4], [unit, unit, 0.0, 0.0]);
        assert_eq!(a.counters, GroupCounters { groups: 2, zero_variance: 1, singletons: 0 });
    }

    #[test]
    fn equal_scores_give_exactly_zero() {
        // Summing 0.1 seven times does not give 0.7; the naive mean is off by 1e-17, which division
        // by the epsilon amplifies.
        let a = run(&GrpoConfig::default(), &[0.1; 7], &[0; 7], &[0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(a.per_row, [0.0; 7]);
        assert_eq!(a.counters.zero_variance, 1);
    }

    #[test]
    fn a_group_of_one_is_zero_except_under_verl_conventions() {
        let ours = run(&GrpoConfig::default(), &[3.0], &[0], &[0]);
        assert_eq!(ours.per_row, [0.0]);
        assert_eq!(ours.counters, GroupCounters { groups: 1, zero_variance: 0, singletons: 1 });
        let verl = GrpoConfig { compat: Some(Compat::Verl), ..GrpoConfig::default() };
        let single = run(&verl, &[3.0], &[0], &[0]).per_row[0];
        assert!((single - 3.0 / (1.0 + 1e-6)).abs() < 1e-6, "{single}");
    }

    #[test]
    fn over_rows_long_rollouts_weigh_more_and_over_rollouts_they_do_not() {
        // Rollout 0 has three calls and reward 1, rollout 1 one call and reward 0.
        let scores = [1.0, 1.0, 1.0, 0.0];
        let plain = GrpoConfig { divide_by_std: false, ..GrpoConfig::default() };
        let rows = run(&plain, &scores, &[0; 4], &[0, 0, 0, 1]);
        assert_eq!(rows.per_row, [0.25, 0.25, 0.25, -0.75]);
        let over = GrpoConfig { group_over: GroupOver::Rollouts, ..plain };
        let rollouts = run(&over, &scores, &[0; 4], &[0, 0, 0, 1]);
        assert_eq!(rollouts.per_row, [0.5, 0.5, 0.5, -0.5]);
    }

    #[test]
    fn one_rollout_of_several_calls_is_a_group_of_one_over_rollouts() {
        let over = GrpoConfig { group_over: GroupOver::Rollouts, ..GrpoConfig::default() };
        let a = run(&over, &[1.0, 1.0], &[0, 0], &[5, 5]);
        assert_eq!(a.per_row, [0.0, 0.0]);
        assert_eq!(a.counters.singletons, 1);
    }
}
