//! Last call: only the call that gave the answer earns the reward.
//!
//! `c_K = R`, `c_k = 0` before. The other extreme from identical credit: no call is paid for
//! what another did, and none for what it prepared. The zeros are credits like others and are
//! compared with; a comparison by turn or role (`group_by`) keeps them apart.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CreditRule, Ruling};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

/// The rule has no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastCallCredit {}

impl CreditRule for LastCallCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<Ruling, CreditError> {
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
