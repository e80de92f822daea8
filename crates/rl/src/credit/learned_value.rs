//! Learned value: generalised advantage estimation with calls as steps.
//!
//! Schulman et al., arXiv 1506.02438, where a step is a whole call and the critic's value is taken
//! once per call, at the last token of its prompt: `δ_k = r_k + γ V_{k+1} − V_k`,
//! `A_k = δ_k + γλ A_{k+1}`, with V = 0 after the last call; the critic's target is `A_k + V_k`.
//! All tokens of a call share its advantage. Untrained calls are not steps: their rewards are added
//! to the preceding trained call.
//!
//! For PPO's whitening of such advantages over tokens, set `advantage.name = "whiten"`.
//!
//! Comparison group: none; the critic's values are the baseline.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule, Targets};
use crate::credit::trajectory::Trajectory;
use crate::credit::values::over_calls;
use crate::error::{ConfigError, CreditError, fraction};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearnedValueCredit {
    /// Discount per call.
    pub gamma: f64,
    /// Weight of longer estimates: 0 trusts the critic, 1 the return.
    pub lambda: f64,
}

impl Default for LearnedValueCredit {
    fn default() -> Self {
        Self { gamma: 1.0, lambda: 1.0 }
    }
}

impl CreditRule for LearnedValueCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        call_credit(self, trajectories)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.gamma", self.gamma)?;
        fraction("credit.lambda", self.lambda)
    }
}

/// Advantages and the critic's targets.
///
/// # Errors
/// If a trained call has no value.
fn call_credit(
    config: &LearnedValueCredit,
    trajectories: &[Trajectory],
) -> Result<CallCredit, CreditError> {
    let missing = ("learned_value", "a critic's values", "they are the baseline of each call");
    let (per_call, targets) = over_calls(config.gamma, config.lambda, trajectories, missing)?;
    Ok(CallCredit { per_call, targets: Some(Targets::Calls(targets)), per_token: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::{CreditConfig, TrajectoryCall};

    fn trajectory(reward: f64, values: &[f64]) -> Trajectory {
        let mut trajectory = Trajectory::of_calls(0, reward, values.len());
        for (call, &value) in trajectory.calls.iter_mut().zip(values) {
            call.value = Some(value);
        }
        trajectory
    }

    #[test]
    fn advantages_by_hand() {
        let mut trajectories = [trajectory(1.0, &[0.5, 0.25, 0.75])];
        trajectories[0].calls[0].step_reward = -0.5;
        let config = LearnedValueCredit { gamma: 0.5, lambda: 0.5 };
        let rows = CreditConfig::LearnedValue(config).assign(&trajectories).unwrap();
        // δ2 = 1 − 0.75; δ1 = 0.375 − 0.25; δ0 = −0.5 + 0.125 − 0.5; γλ = 0.25.
        let a1 = 0.125 + 0.25 * 0.25;
        assert_eq!(rows.returns, [-0.875 + 0.25 * a1, a1, 0.25]);
        let targets = [-0.375 + 0.25 * a1, 0.25 + a1, 1.0];
        assert_eq!(rows.targets, Some(Targets::Calls(targets.to_vec())));
    }

    #[test]
    fn without_discount_it_is_the_return_less_the_value() {
        let trajectories = [trajectory(1.0, &[0.5, 0.25, 0.75]), trajectory(-1.0, &[0.5])];
        let (advantages, _) = over_calls(1.0, 1.0, &trajectories, ("", "", "")).unwrap();
        assert_eq!(advantages, [0.5, 0.75, 0.25, -1.5]);
    }

    #[test]
    fn untrained_calls_need_no_value_and_are_not_steps() {
        let mut holed = trajectory(1.0, &[0.5, 0.0, 0.75]);
        holed.calls[1] =
            TrajectoryCall { trained: false, step_reward: 0.25, ..TrajectoryCall::default() };
        let config = LearnedValueCredit { gamma: 1.0, lambda: 0.0 };
        let rows = CreditConfig::LearnedValue(config).assign(&[holed]).unwrap();
        assert_eq!(rows.returns, [0.25 + 0.75 - 0.5, 0.25]);
    }

    #[test]
    fn a_missing_value_is_rejected() {
        let error = over_calls(1.0, 1.0, &[Trajectory::of_calls(0, 1.0, 1)], ("a", "b", "c"));
        let expected = "credit a needs b, and call 0 of trajectory 0 has none: c";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
