//! Discounted credit: the final reward, discounted by call.
//!
//! `c_k = γ^{K−1−k} R` for call k = 0 … K − 1: the return of a trajectory whose only reward is
//! the last, with a discount per call rather than per token (Sutton and Barto, *Reinforcement
//! Learning*, section 3.3). γ = 1 is identical credit.
//!
//! Comparison group: with γ < 1 the calls at the same index (`group_by = "turn"`) if rollouts have
//! equally many; otherwise those of a task.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::error::{ConfigError, CreditError, fraction};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscountedCredit {
    /// Discount per call.
    pub gamma: f64,
}

impl Default for DiscountedCredit {
    fn default() -> Self {
        Self { gamma: 0.95 }
    }
}

impl CreditRule for DiscountedCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(self, trajectories).into())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.gamma", self.gamma)
    }
}

/// The discounted reward; step rewards do not count (see `return_to_go`). With γ = 0 only the
/// last call earns.
pub fn returns(config: &DiscountedCredit, trajectories: &[Trajectory]) -> Vec<f64> {
    let credit = |trajectory: &Trajectory| {
        let mut following = trajectory.reward;
        let mut backwards = Vec::with_capacity(trajectory.calls.len());
        for _ in &trajectory.calls {
            backwards.push(following);
            following *= config.gamma;
        }
        backwards.reverse();
        backwards
    };
    trajectories.iter().flat_map(credit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_calls_earn_less() {
        let trajectories = [Trajectory::of_calls(0, 8.0, 4), Trajectory::of_calls(0, -1.0, 1)];
        let half = DiscountedCredit { gamma: 0.5 };
        assert_eq!(returns(&half, &trajectories), [1.0, 2.0, 4.0, 8.0, -1.0]);
        let none = DiscountedCredit { gamma: 0.0 };
        assert_eq!(returns(&none, &trajectories), [0.0, 0.0, 0.0, 8.0, -1.0]);
        let all = DiscountedCredit { gamma: 1.0 };
        assert_eq!(returns(&all, &trajectories), crate::credit::identical::returns(&trajectories));
    }
}
