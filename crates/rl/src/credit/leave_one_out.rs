//! Leave one out: what a call of a role added, measured against the trajectory without it.
//!
//! A difference reward (Wolpert and Tumer 2001; COMA's counterfactual, Foerster et al., arXiv
//! 1705.08926): a call of one of the chosen roles earns `R − R_without`, where the
//! counterfactual reward comes from scoring the trajectory as it stood without that call. Of an
//! agent that writes a query and may rewrite it, the rewrite earns what it gained or spoilt
//! over the query before it.
//!
//! Calls of other roles earn what the trajectory would have had without the first chosen call
//! after them, which is what they had achieved by themselves; where none follows, the reward.
//! With one rewrite the credits of query and rewrite add up to the reward.
//!
//! What different roles earn is of different size, so compare within roles:
//! `group_by = "role"`.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CreditRule, Ruling};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaveOneOutCredit {
    /// Roles whose calls are left out (`rewrite`); empty is all.
    pub roles: Vec<String>,
}

impl CreditRule for LeaveOneOutCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<Ruling, CreditError> {
        Ok(returns(self, trajectories)?.into())
    }
}

/// The difference that each call made.
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
        // What the trajectory had before the calls already seen, from the end backwards.
        let mut alone = trajectory.reward;
        for (number, call) in trajectory.calls.iter().enumerate().rev() {
            if config.roles.is_empty() || config.roles.contains(&call.agent_role) {
                alone = call.reward_without.ok_or(CreditError::Missing {
                    rule: "leave_one_out",
                    what: "counterfactual rewards",
                    why: "the agent must score the trajectory as it stood without the call",
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

    /// write, check, rewrite, of which the last is scored without it.
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
        let spoilt = trajectory(0.0, Some(1.0));
        let credit = returns(&rewrites(), &[saved, spoilt]).unwrap();
        assert_eq!(credit, [0.25, 0.25, 0.75, 1.0, 1.0, -1.0]);
    }

    #[test]
    fn without_a_rewrite_the_query_earns_the_reward() {
        let mut short = trajectory(0.5, None);
        short.calls.pop();
        assert_eq!(returns(&rewrites(), &[short]).unwrap(), [0.5, 0.5]);
    }

    #[test]
    fn a_call_between_two_rewrites_has_what_stood_before_the_second() {
        let mut long = trajectory(1.0, Some(0.25));
        long.calls.extend(trajectory(1.0, Some(0.5)).calls.drain(1..));
        // write 0.25, check 0.25, rewrite 1 - 0.25, check 0.5, rewrite 1 - 0.5.
        assert_eq!(returns(&rewrites(), &[long]).unwrap(), [0.25, 0.25, 0.75, 0.5, 0.5]);
    }

    #[test]
    fn a_missing_counterfactual_is_told() {
        let error = returns(&rewrites(), &[trajectory(1.0, Some(0.0)), trajectory(1.0, None)]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "credit leave_one_out needs counterfactual rewards, and call 2 of trajectory 1 has none: \
             the agent must score the trajectory as it stood without the call"
        );
    }
}
