//! Inputs of credit assignment.
//!
//! A trajectory has all calls of a rollout, including untrained ones: a rule that discounts by call
//! must count them all. Only trained calls become rows. Some rules need data that a rollout does
//! not have (a critic's values, anchors, counterfactual rewards); the caller fills in these
//! optional fields.

use leyden_core::{Rollout, SignalKind};

/// Data about one call for credit assignment.
#[derive(Debug, Clone, PartialEq)]
pub struct TrajectoryCall {
    /// The agent's role in this call.
    pub agent_role: String,
    /// Number of tokens that the policy generated.
    pub tokens: usize,
    /// Signals after this call and before the next.
    pub signals: Vec<SignalKind>,
    /// Whether it becomes a row of the batch.
    pub trained: bool,
    /// The environment's reward for this step, in addition to the trajectory's reward, which is
    /// given at the last call; 0 for steps without a reward.
    pub step_reward: f64,
    /// Expected return before this call: a critic's value of the state, or the mean over
    /// completions sampled from there.
    pub value: Option<f64>,
    /// A critic's value at each token of the call.
    pub token_values: Option<Vec<f64>>,
    /// Name of the state in which the call was made: equal states have equal names.
    pub anchor: Option<String>,
    /// The counterfactual reward of the trajectory without this call.
    pub reward_without: Option<f64>,
}

impl Default for TrajectoryCall {
    fn default() -> Self {
        Self {
            agent_role: String::new(),
            tokens: 0,
            signals: Vec::new(),
            trained: true,
            step_reward: 0.0,
            value: None,
            token_values: None,
            anchor: None,
            reward_without: None,
        }
    }
}

/// A finished trajectory that has a reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// All trajectories of one task in one step share a group.
    pub group: usize,
    pub reward: f64,
    /// All calls in order.
    pub calls: Vec<TrajectoryCall>,
}

impl Trajectory {
    /// A trajectory with default data for each of its calls.
    pub fn of_calls(group: usize, reward: f64, calls: usize) -> Self {
        Self { group, reward, calls: vec![TrajectoryCall::default(); calls] }
    }

    /// The trajectory of a rollout, or `None` if it has no reward: such a rollout is excluded from
    /// training, never treated as zero. All calls are marked as trained; the caller may change
    /// that.
    pub fn of(rollout: &Rollout) -> Option<Self> {
        let reward = rollout.outcome.reward()?;
        let calls = rollout.calls.iter().enumerate().map(|(index, call)| TrajectoryCall {
            agent_role: call.agent_role.clone(),
            tokens: call.response_ids.len(),
            signals: rollout
                .signals
                .iter()
                .filter(|signal| signal.call == index)
                .map(|signal| signal.kind.clone())
                .collect(),
            step_reward: rollout
                .process_rewards
                .iter()
                .filter(|reward| reward.call == index)
                .map(|reward| reward.value)
                .sum(),
            ..TrajectoryCall::default()
        });
        Some(Self { group: rollout.group, reward, calls: calls.collect() })
    }

    /// The reward of each step: the environment's, and the trajectory's on the last.
    pub(crate) fn step_rewards(&self) -> Vec<f64> {
        let mut rewards: Vec<f64> = self.calls.iter().map(|call| call.step_reward).collect();
        if let Some(last) = rewards.last_mut() {
            *last += self.reward;
        }
        rewards
    }

    /// The trained calls by index, each with the sum of rewards up to the next one: for the trained
    /// policy, other calls are part of the environment.
    pub(crate) fn trained_steps(&self) -> Vec<(usize, f64)> {
        let mut steps: Vec<(usize, f64)> = Vec::new();
        for (index, (call, reward)) in self.calls.iter().zip(self.step_rewards()).enumerate() {
            if call.trained {
                steps.push((index, reward));
            } else if let Some((_, sum)) = steps.last_mut() {
                *sum += reward;
            }
        }
        steps
    }
}

/// `G_k = r_k + γ G_{k+1}`.
pub(crate) fn returns_to_go(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let mut returns = rewards.to_vec();
    for k in (1..returns.len()).rev() {
        returns[k - 1] += gamma * returns[k];
    }
    returns
}

#[cfg(test)]
mod tests {
    use leyden_core::{Call, FinishReason, Outcome, ProcessReward, Signal};

    use super::*;

    fn rollout(outcome: Outcome) -> Rollout {
        let call = |role: &str, tokens: usize| Call {
            agent_role: role.to_owned(),
            prompt_ids: vec![1],
            response_ids: vec![2; tokens],
            logprobs: vec![-1.0; tokens],
            text: String::new(),
            finish: FinishReason::Stop,
            policy_version: 0,
            constrained: false,
        };
        Rollout {
            id: 0,
            task_id: "t".to_owned(),
            group: 4,
            calls: vec![call("write", 3), call("check", 2)],
            signals: vec![Signal {
                kind: SignalKind::ToolError,
                call: 1,
                detail: "no such table".to_owned(),
            }],
            process_rewards: vec![(0, 0.25), (1, 0.5), (1, -0.125), (7, 9.0)]
                .into_iter()
                .map(|(call, value)| ProcessReward { call, value })
                .collect(),
            answer: None,
            outcome,
        }
    }

    #[test]
    fn a_trajectory_has_the_calls_and_signals_of_its_rollout() {
        let trajectory = Trajectory::of(&rollout(Outcome::Reward(0.5))).unwrap();
        assert_eq!((trajectory.group, trajectory.reward), (4, 0.5));
        assert_eq!(trajectory.calls[0].agent_role, "write");
        assert_eq!(trajectory.calls[1].tokens, 2);
        assert!(trajectory.calls[0].signals.is_empty());
        assert_eq!(trajectory.calls[1].signals, [SignalKind::ToolError]);
        assert!(trajectory.calls.iter().all(|call| call.trained));
        // The rewards of a call add up; one of no call is not given.
        assert_eq!(trajectory.step_rewards(), [0.25, 0.375 + 0.5]);
    }

    #[test]
    fn a_rollout_without_reward_gives_no_trajectory() {
        assert_eq!(Trajectory::of(&rollout(Outcome::Missing("timeout".to_owned()))), None);
    }

    #[test]
    fn rewards_of_untrained_calls_go_to_the_preceding_trained_call() {
        let mut trajectory = Trajectory::of_calls(0, 1.0, 5);
        for (k, call) in trajectory.calls.iter_mut().enumerate() {
            call.step_reward = [0.5, 0.25, 0.0, -0.5, 0.125][k];
            call.trained = k == 1 || k == 3;
        }
        assert_eq!(trajectory.step_rewards(), [0.5, 0.25, 0.0, -0.5, 1.125]);
        // Rewards before the first trained call are not attributed to it.
        assert_eq!(trajectory.trained_steps(), [(1, 0.25), (3, 0.625)]);
        assert_eq!(Trajectory::of_calls(0, 1.0, 0).trained_steps(), []);
    }

    #[test]
    fn returns_are_summed_backwards() {
        assert_eq!(returns_to_go(&[1.0, 0.0, 4.0], 0.5), [2.0, 2.0, 4.0]);
        assert!(returns_to_go(&[], 0.5).is_empty());
    }
}
