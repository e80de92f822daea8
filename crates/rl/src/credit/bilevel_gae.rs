//! Bi-level GAE: advantages over turns, distributed to tokens.
//!
//! RAGEN (Wang et al., arXiv 2504.20073), with a critic's value at every token. The upper level has
//! the turns of a trajectory as steps, each represented by its last token p_i:
//! `δ = r_i + γ_turn V(p_{i+1}) − V(p_i)`, `Â_i = δ + γ_turn λ Â_{i+1}`. Each turn then has the
//! reward `Â_i + V(p_i)` at its last token, and within the turn tokens are steps with γ and λ, with
//! no value after the last. Advantages are whitened by the estimator (`advantage.name = "whiten"`),
//! as in RAGEN.
//!
//! RAGEN detects turn ends by non-zero rewards, so a turn with reward exactly 0 is merged with the
//! next. Here turns are explicit: a call is a turn.
//!
//! Comparison group: none; the critic's values are the baseline.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule, Targets};
use crate::credit::trajectory::Trajectory;
use crate::error::{ConfigError, CreditError, fraction};
use crate::temporal::estimates;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BilevelGaeCredit {
    /// Discount per turn.
    pub turn_gamma: f64,
    /// Discount per token within a turn.
    pub gamma: f64,
    /// Weight of longer estimates, on both levels.
    pub lambda: f64,
}

impl Default for BilevelGaeCredit {
    fn default() -> Self {
        Self { turn_gamma: 0.95, gamma: 1.0, lambda: 1.0 }
    }
}

impl CreditRule for BilevelGaeCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        call_credit(self, trajectories)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.turn_gamma", self.turn_gamma)?;
        fraction("credit.gamma", self.gamma)?;
        fraction("credit.lambda", self.lambda)
    }
}

/// Advantage of each token of one trajectory, not whitened. `turn_rewards[i]` is given at the token
/// `turn_ends[i]`; the ends are ascending and the last is the last token. `values` are those of the
/// policy's tokens only, without the tokens between turns.
///
/// # Panics
/// If there is not one reward per turn or an end is not a token.
pub fn token_advantages(
    config: &BilevelGaeCredit,
    turn_rewards: &[f64],
    values: &[f64],
    turn_ends: &[usize],
) -> Vec<f64> {
    assert_eq!(turn_rewards.len(), turn_ends.len(), "one reward per turn");
    let turns: Vec<(f64, f64)> =
        turn_rewards.iter().zip(turn_ends).map(|(&reward, &end)| (reward, values[end])).collect();
    let turn_advantages = estimates(&turns, config.turn_gamma, config.lambda);
    let mut advantages = Vec::with_capacity(values.len());
    for (&end, turn_advantage) in turn_ends.iter().zip(turn_advantages) {
        let start = advantages.len();
        let mut tokens: Vec<(f64, f64)> = values[start..=end].iter().map(|&v| (0.0, v)).collect();
        if let Some((reward, value)) = tokens.last_mut() {
            *reward = turn_advantage + *value;
        }
        advantages.extend(estimates(&tokens, config.gamma, config.lambda));
    }
    advantages
}

/// Advantages of all tokens, the mean of each call's, and the critic's targets.
///
/// # Errors
/// If a trained call has no token values, or not one per token. A call without tokens is not a
/// turn.
fn call_credit(
    config: &BilevelGaeCredit,
    trajectories: &[Trajectory],
) -> Result<CallCredit, CreditError> {
    let (mut per_call, mut per_token, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (index, trajectory) in trajectories.iter().enumerate() {
        let turns = turns_of(index, trajectory)?;
        let advantages = token_advantages(config, &turns.rewards, &turns.values, &turns.ends);
        let start = per_call.len();
        per_call.resize(start + trajectory.calls.len(), 0.0);
        let mut first = 0;
        for (&call, &end) in turns.calls.iter().zip(&turns.ends) {
            let own = &advantages[first..=end];
            per_call[start + call] = own.iter().sum::<f64>() / own.len() as f64;
            first = end + 1;
        }
        targets.extend(advantages.iter().zip(&turns.values).map(|(a, v)| a + v));
        per_token.extend(advantages);
    }
    let targets = Some(Targets::Tokens(targets));
    Ok(CallCredit { per_call, per_token: Some(per_token), targets })
}

/// The trained calls of one trajectory, concatenated.
#[derive(Default)]
struct Turns {
    calls: Vec<usize>,
    rewards: Vec<f64>,
    values: Vec<f64>,
    ends: Vec<usize>,
}

fn turns_of(index: usize, trajectory: &Trajectory) -> Result<Turns, CreditError> {
    let mut turns = Turns::default();
    for (number, reward) in trajectory.trained_steps() {
        let call = &trajectory.calls[number];
        if call.tokens == 0 {
            continue;
        }
        let values = call.token_values.as_ref().ok_or(CreditError::Missing {
            rule: "bilevel_gae",
            what: "a critic's values at every token",
            why: "they are the baselines of turns and tokens",
            trajectory: index,
            call: number,
        })?;
        if values.len() != call.tokens {
            return Err(CreditError::TokenValues {
                trajectory: index,
                call: number,
                values: values.len(),
                tokens: call.tokens,
            });
        }
        turns.calls.push(number);
        turns.rewards.push(reward);
        turns.values.extend(values);
        turns.ends.push(turns.values.len() - 1);
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::{CreditConfig, TrajectoryCall};

    fn close(ours: &[f64], expected: &[f64]) {
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{ours:?} instead of {expected:?}");
        }
    }

    #[test]
    fn two_levels_by_hand() {
        let config = BilevelGaeCredit { turn_gamma: 0.5, gamma: 0.9, lambda: 0.8 };
        // Turns of two and one tokens with values 0.1, 0.2 | 0.4 and rewards 0 and 1. A turn with
        // reward exactly 0 is still a turn.
        let ours = token_advantages(&config, &[0.0, 1.0], &[0.1, 0.2, 0.4], &[1, 2]);
        let second = 1.0 - 0.4;
        let first = (0.5 * 0.4 - 0.2) + 0.5 * 0.8 * second;
        let opening = (0.9 * 0.2 - 0.1) + 0.9 * 0.8 * first;
        close(&ours, &[opening, first, second]);
    }

    #[test]
    fn one_turn_with_equal_discounts_is_plain_gae() {
        let config = BilevelGaeCredit { turn_gamma: 0.9, gamma: 0.9, lambda: 0.7 };
        let values = [0.3, -0.2, 0.5];
        let plain = estimates(&[(0.0, 0.3), (0.0, -0.2), (2.0, 0.5)], 0.9, 0.7);
        close(&token_advantages(&config, &[2.0], &values, &[2]), &plain);
    }

    #[test]
    fn calls_are_turns_and_their_tokens_rows() {
        let call = |values: &[f64]| TrajectoryCall {
            tokens: values.len(),
            token_values: Some(values.to_vec()),
            ..TrajectoryCall::default()
        };
        let untrained = TrajectoryCall { tokens: 3, trained: false, ..TrajectoryCall::default() };
        let calls = vec![call(&[0.1, 0.2]), untrained, call(&[]), call(&[0.4])];
        let trajectories = [Trajectory { group: 0, reward: 1.0, calls }];
        let config = BilevelGaeCredit { turn_gamma: 0.5, gamma: 0.9, lambda: 0.8 };
        let tokens = token_advantages(&config, &[0.0, 1.0], &[0.1, 0.2, 0.4], &[1, 2]);
        let rows = CreditConfig::BilevelGae(config).assign(&trajectories).unwrap();
        close(&rows.returns, &[(tokens[0] + tokens[1]) / 2.0, 0.0, tokens[2]]);
        close(rows.per_token.as_deref().unwrap(), &tokens);
        let Some(Targets::Tokens(targets)) = rows.targets else { panic!("no targets") };
        close(&targets, &[tokens[0] + 0.1, tokens[1] + 0.2, tokens[2] + 0.4]);
    }

    #[test]
    fn missing_values_and_wrong_counts_are_rejected() {
        let mut trajectory = Trajectory::of_calls(0, 1.0, 1);
        trajectory.calls[0].tokens = 2;
        let assign = |trajectory: &Trajectory| {
            let rule = CreditConfig::BilevelGae(BilevelGaeCredit::default());
            rule.assign(std::slice::from_ref(trajectory)).unwrap_err().to_string()
        };
        assert!(assign(&trajectory).contains("a critic's values at every token"));
        trajectory.calls[0].token_values = Some(vec![0.5]);
        assert_eq!(assign(&trajectory), "call 0 of trajectory 0 has 1 token values for 2 tokens");
    }
}
