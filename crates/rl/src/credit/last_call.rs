//! Last call: only the last call earns the reward.
//!
//! `c_K = R`, `c_k = 0` before. The opposite extreme of identical credit: no call is rewarded for
//! another's work, and none for preparation. The zeros are credits too and enter comparisons;
//! comparing by turn or role (`group_by`) separates them.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

/// The rule has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastCallCredit {}

impl CreditRule for LastCallCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(trajectories).into())
    }
}

/// The reward for the last call of a trajectory, 0 for the others. If the last call is not
/// trained on, no row earns it.
pub fn returns(trajectories: &[Trajectory]) -> Vec<f64> {
    let credit = |trajectory: &Trajectory| {
        let mut credit = vec![0.0; trajectory.calls.len()];
        if let Some(last) = credit.last_mut() {
            *last = trajectory.reward;
        }
        credit
    };
    trajectories.iter().flat_map(credit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::CreditConfig;

    #[test]
    fn only_the_last_call_earns() {
        let mut trajectories = [
            Trajectory::of_calls(0, 1.0, 3),
            Trajectory::of_calls(0, 2.0, 0),
            Trajectory::of_calls(0, 0.5, 1),
        ];
        assert_eq!(returns(&trajectories), [0.0, 0.0, 1.0, 0.5]);
        trajectories[0].calls[2].trained = false;
        let rows = CreditConfig::LastCall(LastCallCredit {}).assign(&trajectories).unwrap();
        assert_eq!(rows.returns, [0.0, 0.0, 0.5]);
    }
}
