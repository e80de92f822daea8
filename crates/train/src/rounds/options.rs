//! How rollouts are generated, and how long anybody may take.

use std::time::Duration;

use leyden_core::Sampling;

/// Who waits for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// In rounds: all rollouts have asked or ended before any is answered. Equal seeds give
    /// equal bytes.
    #[default]
    Lockstep,
    /// Nobody waits for another rollout's agent: requests join the running batch as they come.
    /// Tokens are drawn with the same numbers, but what they round to depends on the company.
    Continuous,
}

/// What becomes of a rollout whose agent failed or was late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It has no reward and is left out of training.
    #[default]
    Drop,
    /// It has the reward 0. Only where failing is the policy's doing.
    Zero,
    /// It is begun again, and dropped once its retries are used up.
    Retry,
}

/// The longest that anybody may take; `None` is without end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// A request of the engine. Under the lockstep schedule a round cannot be interrupted, so
    /// it holds under the continuous one only.
    pub call: Option<Duration>,
    /// An agent, from one answer to its next question or its end.
    pub turn: Option<Duration>,
    /// A rollout, all attempts.
    pub rollout: Option<Duration>,
    /// All rollouts together.
    pub step: Option<Duration>,
}

/// How rollouts are generated.
#[derive(Debug, Clone)]
pub struct RoundOptions {
    pub sampling: Sampling,
    /// Prompts longer than this are refused to the agent.
    pub max_prompt_tokens: usize,
    /// Number of updates behind the policy.
    pub policy_version: u64,
    pub step: u64,
    /// `train`, or the mode of an evaluation.
    pub phase: String,
    pub schedule: Schedule,
    pub deadlines: Deadlines,
    pub on_failure: OnFailure,
    /// Further attempts at a rollout that failed, with [`OnFailure::Retry`].
    pub retries: usize,
}

impl RoundOptions {
    /// In lockstep, without deadlines; what fails is dropped.
    pub fn new(sampling: Sampling, policy_version: u64) -> Self {
        Self {
            sampling,
            max_prompt_tokens: usize::MAX,
            policy_version,
            step: 0,
            phase: "train".to_owned(),
            schedule: Schedule::default(),
            deadlines: Deadlines::default(),
            on_failure: OnFailure::default(),
            retries: 0,
        }
    }
}
