//! Signals: step rewards for events such as tool errors, attributed to the call that caused them.
//!
//! Tool errors, empty results, repeated calls and similar events are known without the final reward
//! and are attributable to a call. A table in the configuration maps them to step rewards, which
//! densifies a sparse outcome (reward shaping; Ng, Harada and Russell 1999, whose caveat applies:
//! unlike potential-based shaping, such rewards can change the optimal policy, so keep them small
//! relative to the outcome).
//!
//! With `s_k` the sum of the table entries over call k's signals,
//! - immediate: `c_k = R + s_k`, identical credit plus the call's own signals;
//! - return to go: `c_k = G_k` over the step rewards `r_k + s_k` with R on the last, so that a
//!   call is also charged for signals of later calls.
//!
//! Comparison group: all calls of all rollouts of a task; for returns to go those at the same index
//! (`group_by = "turn"`) as far as rollouts have equally many.

use std::collections::BTreeMap;

use leyden_core::SignalKind;
use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::{Trajectory, returns_to_go};
use crate::error::{ConfigError, CreditError, fraction, require};

/// The calls that a signal's reward is credited to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalMode {
    /// The call that caused it.
    #[default]
    Immediate,
    /// That call and, discounted, those before it.
    ReturnToGo,
}

/// The reward of each kind of signal; usually negative.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignalRewards {
    pub tool_error: f64,
    pub malformed_call: f64,
    pub unknown_tool: f64,
    pub empty_result: f64,
    pub repeated_call: f64,
    pub turn_limit: f64,
    pub no_answer: f64,
    /// Agent-specific kinds, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, f64>,
}

impl SignalRewards {
    /// The reward of one signal; 0 for a kind without an entry.
    pub fn of(&self, kind: &SignalKind) -> f64 {
        match kind {
            SignalKind::ToolError => self.tool_error,
            SignalKind::MalformedCall => self.malformed_call,
            SignalKind::UnknownTool => self.unknown_tool,
            SignalKind::EmptyResult => self.empty_result,
            SignalKind::RepeatedCall => self.repeated_call,
            SignalKind::TurnLimit => self.turn_limit,
            SignalKind::NoAnswer => self.no_answer,
            SignalKind::Other(name) => self.other.get(name).copied().unwrap_or(0.0),
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        [
            self.tool_error,
            self.malformed_call,
            self.unknown_tool,
            self.empty_result,
            self.repeated_call,
            self.turn_limit,
            self.no_answer,
        ]
        .into_iter()
        .chain(self.other.values().copied())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignalsCredit {
    pub mode: SignalMode,
    /// Discount per call of the return to go.
    pub gamma: f64,
    pub rewards: SignalRewards,
}

impl Default for SignalsCredit {
    /// A tenth of a reward of 1 for clear errors, half of that for unproductive calls.
    fn default() -> Self {
        let rewards = SignalRewards {
            tool_error: -0.1,
            malformed_call: -0.1,
            unknown_tool: -0.1,
            empty_result: -0.05,
            repeated_call: -0.05,
            ..SignalRewards::default()
        };
        Self { mode: SignalMode::Immediate, gamma: 1.0, rewards }
    }
}

impl CreditRule for SignalsCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(returns(self, trajectories).into())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.gamma", self.gamma)?;
        for value in self.rewards.values() {
            require(value.is_finite(), "credit.rewards", value, "a finite number")?;
        }
        Ok(())
    }
}

/// The final reward combined with the signal rewards according to the mode. A signal counts as
/// often as it occurs.
pub fn returns(config: &SignalsCredit, trajectories: &[Trajectory]) -> Vec<f64> {
    let credit = |trajectory: &Trajectory| {
        let signal_sums = trajectory
            .calls
            .iter()
            .map(|call| call.signals.iter().map(|kind| config.rewards.of(kind)).sum::<f64>());
        match config.mode {
            SignalMode::Immediate => signal_sums.map(|s| trajectory.reward + s).collect(),
            SignalMode::ReturnToGo => {
                let rewards: Vec<f64> =
                    trajectory.step_rewards().iter().zip(signal_sums).map(|(r, s)| r + s).collect();
                returns_to_go(&rewards, config.gamma)
            }
        }
    };
    trajectories.iter().flat_map(credit).collect::<Vec<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three calls: the first fails twice, the second repeats a call and has a custom signal, the
    /// third answers.
    fn trajectory() -> Trajectory {
        let mut trajectory = Trajectory::of_calls(0, 1.0, 3);
        trajectory.calls[0].signals = vec![SignalKind::ToolError, SignalKind::ToolError];
        trajectory.calls[1].signals =
            vec![SignalKind::RepeatedCall, SignalKind::Other("slow".to_owned())];
        trajectory
    }

    fn config(text: &str) -> SignalsCredit {
        toml::from_str(text).unwrap()
    }

    const REWARDS: &str =
        "rewards = { tool_error = -0.25, repeated_call = -0.5, other = { slow = -0.125 } }";

    #[test]
    fn immediate_mode_credits_each_call_with_its_own_signals() {
        let credit = returns(&config(REWARDS), &[trajectory()]);
        assert_eq!(credit, [0.5, 0.375, 1.0]);
    }

    #[test]
    fn return_to_go_mode_includes_later_signals() {
        let credit =
            returns(&config(&format!("mode = 'return_to_go'\n{REWARDS}")), &[trajectory()]);
        // 1; 1 - 0.625; 0.375 - 0.5.
        assert_eq!(credit, [-0.125, 0.375, 1.0]);
        let half = format!("mode = 'return_to_go'\ngamma = 0.5\n{REWARDS}");
        // 1; 0.5 - 0.625; -0.0625 - 0.5.
        assert_eq!(returns(&config(&half), &[trajectory()]), [-0.5625, -0.125, 1.0]);
    }

    #[test]
    fn misspelt_kinds_and_infinite_rewards_are_rejected() {
        assert!(toml::from_str::<SignalsCredit>("rewards = { tool_eror = -1.0 }").is_err());
        let error = config("rewards = { other = { slow = inf } }").validate().unwrap_err();
        assert_eq!(error.key(), "credit.rewards");
    }
}
