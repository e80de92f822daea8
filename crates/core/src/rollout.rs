//! The record of an agent's run: calls, signals, outcome.

use serde::{Deserialize, Serialize};

use crate::chat::FinishReason;

/// One model invocation: one action of the Markov decision process.
///
/// Token ids come from the engine, never from re-tokenising text;
/// `response_ids` and `logprobs` have equal length, including the end-of-turn token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The agent's role in this call.
    pub agent_role: String,
    /// The prompt's tokens.
    pub prompt_ids: Vec<u32>,
    /// The generated tokens, including the end-of-turn token if it was sampled.
    pub response_ids: Vec<u32>,
    /// Natural log-probability with which each response token was sampled.
    pub logprobs: Vec<f32>,
    /// The response as text, without the end-of-turn token.
    pub text: String,
    pub finish: FinishReason,
    /// Number of weight updates of the policy that generated the response.
    pub policy_version: u64,
    /// Whether sampling was constrained by a grammar. The log-probabilities are then those of the
    /// constrained distribution, which the trainer does not recompute: such calls are recorded and
    /// counted, but excluded from training.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constrained: bool,
}

/// Kinds of events in an episode that are known without the final reward.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// A tool ran and reported an error.
    ToolError,
    /// A tool call did not parse.
    MalformedCall,
    /// The called tool does not exist.
    UnknownTool,
    /// A tool ran and returned no results.
    EmptyResult,
    /// The tool call repeats an earlier one.
    RepeatedCall,
    /// The agent was stopped by its turn limit.
    TurnLimit,
    /// The agent ended without an answer.
    NoAnswer,
    /// A kind defined by an external agent.
    Other(String),
}

/// One event of an episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    pub kind: SignalKind,
    /// Index of the latest call at the time of the event.
    pub call: usize,
    pub detail: String,
}

/// A reward given during an episode, in addition to the one of its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProcessReward {
    /// Index of the latest call at the time of the reward.
    pub call: usize,
    pub value: f64,
}

/// How a rollout ended. A missing reward is never treated as zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Reward(f64),
    /// No reward, with the reason: the rollout is counted and excluded from training.
    Missing(String),
}

impl Outcome {
    pub fn reward(&self) -> Option<f64> {
        match self {
            Self::Reward(value) => Some(*value),
            Self::Missing(_) => None,
        }
    }
}

/// One run of an agent on one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Position within its step; rounds are ordered by it.
    pub id: usize,
    pub task_id: String,
    /// All rollouts of one task in one step share a group.
    pub group: usize,
    pub calls: Vec<Call>,
    pub signals: Vec<Signal>,
    /// In the order in which they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub process_rewards: Vec<ProcessReward>,
    pub answer: Option<String>,
    pub outcome: Outcome,
}

impl Rollout {
    /// Number of tokens that the policy generated.
    pub fn response_tokens(&self) -> usize {
        self.calls.iter().map(|call| call.response_ids.len()).sum()
    }

    pub fn has_signal(&self, kind: &SignalKind) -> bool {
        self.signals.iter().any(|signal| signal.kind == *kind)
    }
}
