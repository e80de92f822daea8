//! What is left of an agent's run: calls, signals, outcome.

use serde::{Deserialize, Serialize};

use crate::chat::FinishReason;

/// One model invocation: one action of the Markov decision process.
///
/// Token ids come from the engine, never from tokenising text again;
/// `response_ids` and `logprobs` have equal length, the end-of-turn token included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The agent's role in this call.
    pub agent_role: String,
    /// What the model saw.
    pub prompt_ids: Vec<u32>,
    /// What it wrote, the end-of-turn token included if it was sampled.
    pub response_ids: Vec<u32>,
    /// Natural logarithm of the probability with which each response token was drawn.
    pub logprobs: Vec<f32>,
    /// The response as text, without the end-of-turn token.
    pub text: String,
    pub finish: FinishReason,
    /// Number of weight updates behind the policy that wrote it.
    pub policy_version: u64,
    /// Whether a grammar held the sampler to a form. The log-probabilities are then those of
    /// the constrained distribution, which the trainer does not recompute: such calls are
    /// recorded and counted, and left out of training.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constrained: bool,
}

/// Kinds of events inside an episode that are known without the final reward.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// A tool ran and reported an error.
    ToolError,
    /// A tool call that does not parse.
    MalformedCall,
    /// A call of a tool that does not exist.
    UnknownTool,
    /// A tool ran and found nothing.
    EmptyResult,
    /// The same tool call as before.
    RepeatedCall,
    /// The agent was stopped by its turn limit.
    TurnLimit,
    /// The agent ended without an answer.
    NoAnswer,
    /// A kind of an external agent's own.
    Other(String),
}

/// One event of an episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    pub kind: SignalKind,
    /// Index of the latest call when it happened.
    pub call: usize,
    pub detail: String,
}

/// How a rollout ended. A missing reward is never a zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Reward(f64),
    /// No reward, and why: the rollout is counted and left out of training.
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
    pub answer: Option<String>,
    pub outcome: Outcome,
}

impl Rollout {
    /// Number of tokens that the policy wrote.
    pub fn response_tokens(&self) -> usize {
        self.calls.iter().map(|call| call.response_ids.len()).sum()
    }

    pub fn has_signal(&self, kind: &SignalKind) -> bool {
        self.signals.iter().any(|signal| signal.kind == *kind)
    }
}
