//! MaxRL: the score minus its group's mean, relative to that mean.
//!
//! *Maximum Likelihood Reinforcement Learning*, arXiv 2602.02710. For rewards 0 and 1 the mean
//! estimates the success probability p, and dividing by it turns the gradient of p into that of log
//! p: a rarely solved task contributes as much as one solved half the time.
//!
//! Comparison group: the rollouts of a task, two or more, since p is the share of rollouts that
//! succeed; over rows, rollouts with more calls would count more often. `group_over = "rows"`
//! compares rows.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Estimator, GroupOver};
use crate::advantage::grouping::{Comparison, Grouping};
use crate::error::{AdvantageError, ConfigError, not_negative};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaxRlConfig {
    /// Added to the mean.
    pub epsilon: f64,
    /// Rollouts by default.
    pub group_over: GroupOver,
}

impl Default for MaxRlConfig {
    fn default() -> Self {
        Self { epsilon: 1e-6, group_over: GroupOver::Rollouts }
    }
}

impl Estimator for MaxRlConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        not_negative("advantage.epsilon", self.epsilon)
    }
}

/// `A = (score − mean) / (mean + ε)`.
///
/// A group whose mean is 0 or less gets 0, since the logarithm has no gradient there. So does a
/// group of one.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &MaxRlConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let per_row = grouping.advantages(batch, None, 1.0, |group| {
        let baseline = group.mean();
        let divisor = if baseline > 0.0 { baseline + config.epsilon } else { f64::INFINITY };
        vec![Comparison { baseline, divisor }; group.entries.len()]
    });
    Ok(Advantages::of_rows(per_row, batch, grouping.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn a_rare_success_has_a_larger_advantage_than_a_common_one() {
        let rows = Rows::dense(&[1; 8]);
        let scores = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, -0.5];
        let batch = AdvantageInputs::of_outcomes(
            &rows,
            &scores,
            &[0, 0, 0, 0, 1, 1, 2, 2],
            &[0, 1, 2, 3, 4, 5, 6, 7],
        );
        let exact = MaxRlConfig { epsilon: 0.0, ..MaxRlConfig::default() };
        let a = advantages(&exact, &batch).unwrap();
        assert_eq!(a.per_row, [3.0, -1.0, -1.0, -1.0, 1.0, -1.0, 0.0, 0.0]);
        let with = advantages(&MaxRlConfig::default(), &batch).unwrap();
        assert_eq!(with.per_row[0], 0.75 / (0.25 + 1e-6));
    }

    #[test]
    fn a_rollout_counts_once_whatever_its_number_of_calls() {
        let rows = Rows::dense(&[1; 4]);
        let scores = [1.0, 1.0, 1.0, 0.0];
        let batch = AdvantageInputs::of_outcomes(&rows, &scores, &[0; 4], &[0, 0, 0, 1]);
        let exact = MaxRlConfig { epsilon: 0.0, ..MaxRlConfig::default() };
        // One of two rollouts succeeds: p = 1/2; over rows it would be 3/4.
        assert_eq!(advantages(&exact, &batch).unwrap().per_row, [1.0, 1.0, 1.0, -1.0]);
        let by_row = MaxRlConfig { group_over: GroupOver::Rows, ..exact };
        assert_eq!(advantages(&by_row, &batch).unwrap().per_row[3], -1.0);
        assert!((advantages(&by_row, &batch).unwrap().per_row[0] - 1.0 / 3.0).abs() < 1e-15);
    }
}
