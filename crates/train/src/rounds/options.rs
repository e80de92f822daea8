//! Options of a round of rollouts: sampling, schedule, deadlines, failure handling.

use std::time::Duration;

use leyden_core::Sampling;

/// How rollouts are synchronised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// In rounds: all rollouts have asked or ended before any is answered. Equal seeds give
    /// equal bytes.
    #[default]
    Lockstep,
    /// Rollouts do not wait for each other's agents: requests join the running batch on arrival.
    /// The random draws are the same, but rounding depends on the composition of the batch.
    Continuous,
}

/// Handling of a rollout whose agent failed or timed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It has no reward and is excluded from training.
    #[default]
    Drop,
    /// It has the reward 0. Only appropriate if failures are caused by the policy.
    Zero,
    /// It is restarted, and dropped once its retries are used up.
    Retry,
}

/// Timeouts; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// An engine request. Only under the continuous schedule, since a lockstep round cannot be
    /// interrupted.
    pub call: Option<Duration>,
    /// An agent's turn, from a reply to its next request or its end.
    pub turn: Option<Duration>,
    /// A rollout, including all attempts.
    pub rollout: Option<Duration>,
    /// All rollouts together.
    pub step: Option<Duration>,
}

/// Options of a round of rollouts.
#[derive(Debug, Clone)]
pub struct RoundOptions {
    pub sampling: Sampling,
    /// Longer prompts are rejected with an error to the agent.
    pub max_prompt_tokens: usize,
    /// Number of updates of the policy.
    pub policy_version: u64,
    pub step: u64,
    /// `train`, or the mode of an evaluation.
    pub phase: String,
    pub schedule: Schedule,
    pub deadlines: Deadlines,
    pub on_failure: OnFailure,
    /// Maximum retries of a failed rollout, with [`OnFailure::Retry`].
    pub retries: usize,
}

impl RoundOptions {
    /// Lockstep, without deadlines; failed rollouts are dropped.
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
