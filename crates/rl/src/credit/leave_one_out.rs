//! Leave one out: a call's contribution, relative to the trajectory without it.
//!
//! A difference reward (Wolpert and Tumer 2001; COMA's counterfactual, Foerster et al., arXiv
//! 1705.08926): a call of one of the chosen roles earns `R − R_without`, where the counterfactual
//! reward comes from scoring the trajectory without that call. For an agent that writes a query and
//! may rewrite it, the rewrite earns the change in reward relative to the query before it.
//!
//! Calls of other roles earn the counterfactual reward without the first chosen call after them,
//! which is what they achieved by themselves; without such a call, the reward. With one rewrite the
//! credits of query and rewrite add up to the reward.
//!
//! Comparison group: the calls of a role (`group_by = "role"`), since returns of different roles
//! differ in scale.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaveOneOutCredit {
    /// Roles whose calls are left out (`rewrite`); empty is all.
    pub roles: Vec<String>,
}

impl CreditRule for LeaveOneOutCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(self, trajectories)?.into())
    }
}

/// The credit of each call.
///
/// # Errors
/// If a call of one of the roles has no counterfactual reward.
pub fn returns(
    config: &LeaveOneOutCredit,
    trajectories: &[Trajectory],
) -> Result<Vec<f64>, CreditError> {
    let mut all = Vec::new();
    for (index, trajectory) in trajectories.iter().enumerate() {
        let start = all.len();
        // Going backwards: the reward without the chosen calls visited so far.
        let mut alone = trajectory.reward;
        for (number, call) in trajectory.calls.iter().enumerate().rev() {
            if config.roles.is_empty() || config.roles.contains(&call.agent_role) {
                alone = call.reward_without.ok_or(CreditError::Missing {
                    rule: "leave_one_out",
                    what: "counterfactual rewards",
                    why: "the agent must score the trajectory with the call left out",
                    trajectory: index,
                    call: number,
                })?;
                all.push(trajectory.reward - alone);
            } else {
                all.push(alone);
            }
        }
        all[start..].reverse();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls write, check, rewrite; the last has a counterfactual reward.
    fn trajectory(reward: f64, without: Option<f64>) -> Trajectory {
        let mut trajectory = Trajectory::of_calls(0, reward, 3);
        for (call, role) in trajectory.calls.iter_mut().zip(["write", "check", "rewrite"]) {
            call.agent_role = role.to_owned();
        }
        trajectory.calls[2].reward_without = without;
        trajectory
    }

    fn rewrites() -> LeaveOneOutCredit {
        LeaveOneOutCredit { roles: vec!["rewrite".to_owned()] }
    }

    #[test]
    fn a_rewrite_earns_what_it_added_and_the_query_what_it_had() {
        let saved = trajectory(1.0, Some(0.25));
        let worsened = trajectory(0.0, Some(1.0));
        let credit = returns(&rewrites(), &[saved, worsened]).unwrap();
        assert_eq!(credit, [0.25, 0.25, 0.75, 1.0, 1.0, -1.0]);
    }

    #[test]
    fn without_a_rewrite_the_query_earns_the_reward() {
        let mut short = trajectory(0.5, None);
        short.calls.pop();
        assert_eq!(returns(&rewrites(), &[short]).unwrap(), [0.5, 0.5]);
    }

    #[test]
    fn a_call_between_two_rewrites_earns_the_reward_before_the_second() {
        let mut long = trajectory(1.0, Some(0.25));
        long.calls.extend(trajectory(1.0, Some(0.5)).calls.drain(1..));
        // write 0.25, check 0.25, rewrite 1 - 0.25, check 0.5, rewrite 1 - 0.5.
        assert_eq!(returns(&rewrites(), &[long]).unwrap(), [0.25, 0.25, 0.75, 0.5, 0.5]);
    }

    #[test]
    fn a_missing_counterfactual_is_rejected() {
        let error = returns(&rewrites(), &[trajectory(1.0, Some(0.0)), trajectory(1.0, None)]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "credit leave_one_out needs counterfactual rewards, and call 2 of trajectory 1 has none: \
             the agent must score the trajectory with the call left out"
        );
    }
}
