//! Equal share: the calls of a trajectory split its reward.
//!
//! `c_k = R / K` with K calls. The credits of a trajectory add up to its reward, so an agent that
//! needs fewer calls for the same reward earns more per call: an incentive for short trajectories
//! that identical credit lacks.
//!
//! Comparison group: all calls of all rollouts of a task, so that rewards per call are compared.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

/// The rule has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EqualShareCredit {}

impl CreditRule for EqualShareCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(trajectories).into())
    }
}

/// `R / K` for each of the K calls of a trajectory.
pub fn returns(trajectories: &[Trajectory]) -> Vec<f64> {
    let share = |trajectory: &Trajectory| trajectory.reward / trajectory.calls.len() as f64;
    trajectories.iter().flat_map(|e| vec![share(e); e.calls.len()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_a_trajectory_add_up_to_its_reward() {
        let trajectories = [
            Trajectory::of_calls(0, 1.0, 4),
            Trajectory::of_calls(0, 3.0, 0),
            Trajectory::of_calls(0, -0.5, 1),
        ];
        assert_eq!(returns(&trajectories), [0.25, 0.25, 0.25, 0.25, -0.5]);
    }
}
