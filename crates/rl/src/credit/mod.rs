//! Credit assignment: from the return of an episode to one number per call.
//!
//! An agent calls the model several times and is rewarded once, at the end. Each call is an
//! action of a Markov decision process and becomes a row of the batch; credit says what each
//! of them earned. One file per rule; a rule sees all episodes of the step at once, with what
//! is known about each call, so that it may compare episodes of a group.

mod identical;

use leyden_core::{Rollout, SignalKind};
use serde::{Deserialize, Serialize};

pub use identical::IdenticalCredit;

/// What credit assignment may know about one call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EpisodeCall {
    /// The agent's role in this call.
    pub agent_role: String,
    /// Number of tokens that the policy wrote.
    pub tokens: usize,
    /// What happened after this call and before the next.
    pub signals: Vec<SignalKind>,
}

/// A finished episode that has a reward.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// All episodes of one task in one step share a group.
    pub group: usize,
    pub reward: f64,
    /// The calls that are trained on, in order.
    pub calls: Vec<EpisodeCall>,
}

impl Episode {
    /// An episode of which nothing is known about its calls but their number.
    pub fn of_calls(group: usize, reward: f64, calls: usize) -> Self {
        Self { group, reward, calls: vec![EpisodeCall::default(); calls] }
    }

    /// The episode of a rollout, or `None` if it has no reward: such a rollout is left out of
    /// training, never taken for a zero.
    pub fn of(rollout: &Rollout) -> Option<Self> {
        let reward = rollout.outcome.reward()?;
        let calls = rollout.calls.iter().enumerate().map(|(index, call)| EpisodeCall {
            agent_role: call.agent_role.clone(),
            tokens: call.response_ids.len(),
            signals: rollout
                .signals
                .iter()
                .filter(|signal| signal.call == index)
                .map(|signal| signal.kind.clone())
                .collect(),
        });
        Some(Self { group: rollout.group, reward, calls: calls.collect() })
    }
}

/// The calls of all episodes as rows, in order: episode after episode, call after call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallReturns {
    /// What each call earned.
    pub returns: Vec<f64>,
    /// The group of each call.
    pub groups: Vec<usize>,
    /// The index of each call's episode in the slice that was given.
    pub episodes: Vec<usize>,
}

/// A rule of credit assignment, by `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum CreditConfig {
    Identical(IdenticalCredit),
}

impl Default for CreditConfig {
    fn default() -> Self {
        Self::Identical(IdenticalCredit {})
    }
}

impl CreditConfig {
    /// Assigns credit to every call of every episode.
    pub fn assign(&self, episodes: &[Episode]) -> CallReturns {
        let returns = match self {
            Self::Identical(_) => identical::returns(episodes),
        };
        let mut rows = CallReturns { returns, ..CallReturns::default() };
        for (index, episode) in episodes.iter().enumerate() {
            for _ in &episode.calls {
                rows.groups.push(episode.group);
                rows.episodes.push(index);
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use leyden_core::{Call, FinishReason, Outcome, Signal};

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
            answer: None,
            outcome,
        }
    }

    #[test]
    fn an_episode_knows_its_calls_and_their_signals() {
        let episode = Episode::of(&rollout(Outcome::Reward(0.5))).unwrap();
        assert_eq!((episode.group, episode.reward), (4, 0.5));
        assert_eq!(episode.calls[0].agent_role, "write");
        assert_eq!(episode.calls[1].tokens, 2);
        assert!(episode.calls[0].signals.is_empty());
        assert_eq!(episode.calls[1].signals, [SignalKind::ToolError]);
    }

    #[test]
    fn a_rollout_without_reward_is_no_episode() {
        assert_eq!(Episode::of(&rollout(Outcome::Missing("timeout".to_owned()))), None);
    }
}
