//! GiGPO: comparison of trajectories in a group, and of calls in equal states.
//!
//! Feng et al., *Group-in-Group Policy Optimization*, arXiv 2505.10978. A call's advantage is
//! the sum of two comparisons: of its trajectory's reward with those of the group, and of its
//! return to go with those of the calls made in the same state (the anchor) anywhere in the
//! group: `A = A_trajectory + ω A_step`. Trajectories that pass through a common state thus
//! compare what they did there, without a critic.
//!
//! The agent must name its states ([`crate::credit::TrajectoryCall::anchor`]): for an agent that
//! queries a database, the question with the result of the query so far. States seen once have no
//! comparison and get `A_step = 0`.
//!
//! Comparison group: the rule makes both comparisons itself and needs two or more rollouts of a task;
//! the estimator must not compare again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::{Trajectory, returns_to_go};
use crate::error::{ConfigError, CreditError, fraction, not_negative};
use crate::rows::Rows;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GigpoCredit {
    /// Discount per call of the return to go.
    pub gamma: f64,
    /// Factor ω of the step comparison.
    pub step_weight: f64,
    /// Whether both comparisons divide by the standard deviation.
    pub divide_by_std: bool,
    /// Added to the standard deviation.
    pub epsilon: f64,
    /// The unit that counts once in the comparison of trajectories: every call, as in the authors'
    /// code, or every rollout.
    pub group_over: GroupOver,
}

impl Default for GigpoCredit {
    fn default() -> Self {
        Self {
            gamma: 0.95,
            step_weight: 1.0,
            divide_by_std: true,
            epsilon: 1e-6,
            group_over: GroupOver::Rows,
        }
    }
}

impl CreditRule for GigpoCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(advantages(self, trajectories)?.into())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.gamma", self.gamma)?;
        not_negative("credit.step_weight", self.step_weight)?;
        not_negative("credit.epsilon", self.epsilon)
    }
}

/// The sum of both comparisons for each trained call, 0 for others.
///
/// # Errors
/// If a trained call has no anchor, or a reward is not finite.
pub fn advantages(
    config: &GigpoCredit,
    trajectories: &[Trajectory],
) -> Result<Vec<f64>, CreditError> {
    let mut calls = Trained::default();
    let mut states = HashMap::new();
    let mut place = 0;
    for (index, trajectory) in trajectories.iter().enumerate() {
        let returns = returns_to_go(&trajectory.step_rewards(), config.gamma);
        for (number, call) in trajectory.calls.iter().enumerate() {
            if call.trained {
                let anchor = call.anchor.as_deref().ok_or(CreditError::Missing {
                    rule: "gigpo",
                    what: "the anchor of every call",
                    why: "calls made in equal states are compared, and the agent must \
                          name the states",
                    trajectory: index,
                    call: number,
                })?;
                let next = states.len();
                calls.places.push(place);
                calls.groups.push(trajectory.group);
                calls.states.push(*states.entry((trajectory.group, anchor)).or_insert(next));
                calls.trajectories.push(index);
                calls.rewards.push(trajectory.reward);
                calls.returns.push(returns[number]);
            }
            place += 1;
        }
    }
    let mut all = vec![0.0; place];
    for (&place, advantage) in calls.places.iter().zip(calls.compare(config)?) {
        all[place] = advantage;
    }
    Ok(all)
}

/// The trained calls, one entry each.
#[derive(Default)]
struct Trained {
    /// Index among all calls.
    places: Vec<usize>,
    groups: Vec<usize>,
    /// Number of group and state.
    states: Vec<usize>,
    trajectories: Vec<usize>,
    /// The trajectory's reward.
    rewards: Vec<f64>,
    /// The return to go.
    returns: Vec<f64>,
}

impl Trained {
    fn compare(&self, config: &GigpoCredit) -> Result<Vec<f64>, CreditError> {
        // The comparisons use the number of rows, not their tokens.
        let rows = Rows::dense(&vec![0; self.places.len()]);
        let compare = |scores, groups, over| {
            let batch = AdvantageInputs::of_outcomes(&rows, scores, groups, &self.trajectories);
            Grouping::new(&batch, over).map(|grouping| {
                grouping.standardised(&batch, None, config.divide_by_std, config.epsilon)
            })
        };
        let trajectory = compare(&self.rewards, &self.groups, config.group_over)?;
        let step = compare(&self.returns, &self.states, GroupOver::Rows)?;
        let sum = |(e, s): (&f64, &f64)| e + config.step_weight * s;
        Ok(trajectory.iter().zip(&step).map(sum).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trajectory(group: usize, reward: f64, anchors: &[&str]) -> Trajectory {
        let mut trajectory = Trajectory::of_calls(group, reward, anchors.len());
        for (call, anchor) in trajectory.calls.iter_mut().zip(anchors) {
            call.anchor = Some((*anchor).to_owned());
        }
        trajectory
    }

    fn plain() -> GigpoCredit {
        GigpoCredit {
            gamma: 0.5,
            step_weight: 2.0,
            divide_by_std: false,
            group_over: GroupOver::Rollouts,
            ..GigpoCredit::default()
        }
    }

    #[test]
    fn calls_of_equal_states_are_compared_by_hand() {
        // Both begin in `start`; the second also visits `table`.
        let trajectories =
            [trajectory(0, 1.0, &["start"]), trajectory(0, 0.0, &["start", "table"])];
        let ours = advantages(&plain(), &trajectories).unwrap();
        // Trajectories: mean 0.5. In `start` the returns to go are 1 and 0, mean 0.5; `table` was
        // seen once.
        assert_eq!(ours, [0.5 + 2.0 * 0.5, -0.5 - 2.0 * 0.5, -0.5]);
    }

    #[test]
    fn the_return_to_go_is_discounted_by_call() {
        // `start` is visited twice by the first trajectory: returns 0.5 and 1, compared with 0.
        let trajectories =
            [trajectory(0, 1.0, &["start", "start"]), trajectory(0, 0.0, &["start"])];
        let ours = advantages(&plain(), &trajectories).unwrap();
        assert_eq!(ours, [0.5 + 2.0 * 0.0, 0.5 + 2.0 * 0.5, -0.5 - 2.0 * 0.5]);
    }

    #[test]
    fn equal_names_in_different_groups_are_different_states() {
        let trajectories = [
            trajectory(0, 1.0, &["start"]),
            trajectory(1, 0.0, &["start"]),
            trajectory(0, 1.0, &["other"]),
            trajectory(1, 0.0, &["other"]),
        ];
        assert_eq!(advantages(&plain(), &trajectories).unwrap(), [0.0; 4]);
    }

    #[test]
    fn over_rows_long_episodes_weigh_more_in_the_comparison_of_trajectories() {
        let trajectories = [trajectory(0, 1.0, &["a", "b", "c"]), trajectory(0, 0.0, &["d"])];
        let rows = GigpoCredit { group_over: GroupOver::Rows, ..plain() };
        assert_eq!(advantages(&rows, &trajectories).unwrap(), [0.25, 0.25, 0.25, -0.75]);
    }

    #[test]
    fn with_deviations_both_parts_are_standardised() {
        let trajectories = [trajectory(0, 1.0, &["start"]), trajectory(0, 0.0, &["start"])];
        let ours = advantages(&GigpoCredit::default(), &trajectories).unwrap();
        let unit = 0.5 / (0.5_f64.sqrt() + 1e-6);
        assert_eq!(ours, [2.0 * unit, -2.0 * unit]);
    }

    #[test]
    fn a_trained_call_without_anchor_is_rejected() {
        let mut trajectories = [trajectory(0, 1.0, &["start"]), Trajectory::of_calls(0, 0.0, 1)];
        let error = advantages(&plain(), &trajectories).unwrap_err().to_string();
        assert!(
            error.contains("call 0 of trajectory 1") && error.contains("equal states"),
            "{error}"
        );
        trajectories[1].calls[0].trained = false;
        assert_eq!(advantages(&plain(), &trajectories).unwrap(), [0.0, 0.0]);
    }
}
