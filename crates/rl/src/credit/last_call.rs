//! Last call: only the last call earns the reward.
//!
//! The opposite extreme of identical credit: no call is rewarded for another's work, and none for
//! preparation. The earlier calls have no credit: they are left out of training, so they enter no
//! comparison and have no weight in the loss.
//!
//! With `others = "zero"` they are trained with a return of 0. A return of 0 is not "no credit": it
//! is compared with the rewards of last calls and is worse than the mean whenever these are above 0,
//! so preparing is unlearned.
//!
//! Comparison group: the last calls of a task. With `others = "zero"` compare within a role or turn
//! (`group_by`), so that zeros are not compared with rewards.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;

/// What becomes of the calls before the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// They are not trained.
    #[default]
    LeftOut,
    /// They are trained with a return of 0.
    Zero,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LastCallCredit {
    pub others: Others,
}

impl CreditRule for LastCallCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(trajectories).into())
    }

    fn leaves_out(&self, trajectory: &Trajectory, call: usize) -> bool {
        self.others == Others::LeftOut && call + 1 < trajectory.calls.len()
    }
}

/// `c_K = R` for the last call of a trajectory, `c_k = 0` for the others. If the last call is not
/// trained, no row earns the reward.
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
    fn only_the_last_call_earns_and_the_others_are_left_out() {
        let mut trajectories = [
            Trajectory::of_calls(0, 1.0, 3),
            Trajectory::of_calls(0, 2.0, 0),
            Trajectory::of_calls(0, 0.5, 1),
        ];
        let left_out = CreditConfig::LastCall(LastCallCredit::default());
        let rows = left_out.assign(&trajectories).unwrap();
        assert_eq!((rows.returns, rows.calls), (vec![1.0, 0.5], vec![2, 0]));
        assert_eq!(rows.trajectories, [0, 2]);
        let zero = CreditConfig::LastCall(LastCallCredit { others: Others::Zero });
        assert_eq!(zero.assign(&trajectories).unwrap().returns, [0.0, 0.0, 1.0, 0.5]);
        trajectories[0].calls[2].trained = false;
        assert_eq!(left_out.assign(&trajectories).unwrap().returns, [0.5]);
        assert_eq!(zero.assign(&trajectories).unwrap().returns, [0.0, 0.0, 0.5]);
    }

    #[test]
    fn calls_that_are_left_out_are_marked_as_untrained() {
        let mut trajectory = Trajectory::of_calls(0, 1.0, 3);
        let trained = |trajectory: &Trajectory| {
            trajectory.calls.iter().map(|call| call.trained).collect::<Vec<_>>()
        };
        CreditConfig::LastCall(LastCallCredit { others: Others::Zero }).leave_out(&mut trajectory);
        assert_eq!(trained(&trajectory), [true; 3]);
        CreditConfig::LastCall(LastCallCredit::default()).leave_out(&mut trajectory);
        assert_eq!(trained(&trajectory), [false, false, true]);
    }
}
