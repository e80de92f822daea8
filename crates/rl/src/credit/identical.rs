//! Identical credit: every call earns the final reward.
//!
//! The rule of LightningRL's paper (arXiv 2508.03680). It does not distinguish between the calls of
//! a trajectory, but it is unbiased, and the comparison with other rollouts of the same task
//! provides the signal.
//!
//! Comparison group: all calls of all rollouts of a task in the paper; any other fits, too.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

/// The rule has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdenticalCredit {}

impl CreditRule for IdenticalCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(trajectories).into())
    }
}

/// The trajectory's reward, for each of its calls.
pub fn returns(trajectories: &[Trajectory]) -> Vec<f64> {
    trajectories
        .iter()
        .flat_map(|trajectory| trajectory.calls.iter().map(|_| trajectory.reward))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::CreditConfig;

    #[test]
    fn each_call_earns_the_reward_of_its_trajectory() {
        let trajectories = [
            Trajectory::of_calls(7, 1.0, 2),
            Trajectory::of_calls(7, 0.25, 0),
            Trajectory::of_calls(8, 0.0, 1),
        ];
        let rows = CreditConfig::default().assign(&trajectories).unwrap();
        assert_eq!(rows.returns, [1.0, 1.0, 0.0]);
        assert_eq!(rows.groups, [7, 7, 8]);
        assert_eq!(rows.trajectories, [0, 0, 2]);
    }
}
