//! Return to go: the rewards from a call on.
//!
//! `c_k = G_k = r_k + γ G_{k+1}`, where r_k is the environment's reward of step k; the last step
//! also earns the trajectory's reward. No call is rewarded for what happened before it (Sutton and
//! Barto, *Reinforcement Learning*, section 3.3; "reward to go" of the policy gradient). Without
//! step rewards it equals discounted credit.
//!
//! Comparison group: the calls at the same index (`group_by = "turn"`), since the remaining return
//! depends on it; those of a task if rollouts differ in their number of calls.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::{Trajectory, returns_to_go};
use crate::error::{ConfigError, CreditError, fraction};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReturnToGoCredit {
    /// Discount per call.
    pub gamma: f64,
}

impl Default for ReturnToGoCredit {
    fn default() -> Self {
        Self { gamma: 1.0 }
    }
}

impl CreditRule for ReturnToGoCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(self, trajectories).into())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.gamma", self.gamma)
    }
}

/// The return from each call on.
pub fn returns(config: &ReturnToGoCredit, trajectories: &[Trajectory]) -> Vec<f64> {
    trajectories.iter().flat_map(|e| returns_to_go(&e.step_rewards(), config.gamma)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::discounted::{self, DiscountedCredit};

    #[test]
    fn a_call_earns_what_follows_it() {
        let mut trajectory = Trajectory::of_calls(0, 1.0, 3);
        trajectory.calls[0].step_reward = -1.0;
        trajectory.calls[1].step_reward = 0.5;
        let returns =
            |gamma| returns(&ReturnToGoCredit { gamma }, std::slice::from_ref(&trajectory));
        // From the end: 1; 0.5 + 1; -1 + 1.5.
        assert_eq!(returns(1.0), [0.5, 1.5, 1.0]);
        // 1; 0.5 + 0.5; -1 + 0.5.
        assert_eq!(returns(0.5), [-0.5, 1.0, 1.0]);
    }

    #[test]
    fn without_step_rewards_it_is_discounted_credit() {
        let trajectories = [Trajectory::of_calls(0, 0.75, 3), Trajectory::of_calls(1, -2.0, 2)];
        assert_eq!(
            returns(&ReturnToGoCredit { gamma: 0.5 }, &trajectories),
            discounted::returns(&DiscountedCredit { gamma: 0.5 }, &trajectories)
        );
    }
}
