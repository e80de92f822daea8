//! Rollouts as data: found, listed, and written for other programs.
//!
//! An exported row is one model call, because a call is what a trainer trains on: the tokens
//! it saw, those it wrote, their log-probabilities, and what the rollout earned. The columns
//! ([`COLUMNS`]) carry the names under which verl and prime-rl know these things, so that a row
//! is theirs without renaming:
//!
//! - verl: the fields of its `AgentLoopOutput` (`prompt_ids`, `response_ids`, `response_mask`,
//!   `response_logprobs`, `reward_score`), the `uid` by which its group advantages are formed,
//!   and the keys of its rollout dumps (`input`, `output`, `gts`, `score`, `step`).
//! - prime-rl: the fields of its `TrainingSample` (`token_ids`, `mask`, `logprobs`,
//!   `temperatures`, `env_name`, `advantages`), one value a token of prompt and response.
//!
//! The same tokens are there twice, in both shapes; a file for one reader leaves the other's
//! out. What is missing is null: a rollout without reward has no `score` of 0.

mod columns;
mod error;
mod jsonl;
mod parquet;
mod prompts;
mod run_store;

pub use columns::{COLUMNS, Cell, Column, Kind, Reader, columns_of};
pub use error::ExportError;
pub use jsonl::JsonLines;
pub use parquet::ParquetFile;
pub use prompts::{Decode, PromptText, prompts};
pub use run_store::{Place, RunStore};

/// One rollout with everything that was kept of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rollout {
    /// Its address within its store: `12/train/5` in a run folder, an id in a server's store.
    pub id: String,
    /// Training step, where there are steps.
    pub step: Option<u64>,
    /// `train`, `greedy` or `sampled`.
    pub phase: String,
    /// Equal for the rollouts of one task in one step.
    pub group: String,
    pub task_id: String,
    /// Name of the agent.
    pub agent: Option<String>,
    pub question: String,
    pub gold: Option<String>,
    pub answer: Option<String>,
    pub reward: Option<f64>,
    /// Why there is no reward.
    pub missing: Option<String>,
    pub calls: Vec<Call>,
    pub signals: Vec<Signal>,
}

/// One model call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Call {
    pub role: String,
    pub prompt_ids: Vec<u32>,
    pub response_ids: Vec<u32>,
    /// One a response token; empty where the server that answered reported none.
    pub logprobs: Vec<f32>,
    /// The prompt as text, where it was kept.
    pub prompt: Option<String>,
    pub text: String,
    /// `stop` or `length`.
    pub finish: String,
    pub policy_version: u64,
    /// Whether a grammar restricted the sampler.
    pub constrained: bool,
    /// With which the response was drawn.
    pub temperature: Option<f64>,
    /// What the credit rule gave the call, and its advantage; absent where it was not trained
    /// on.
    pub credit: Option<f64>,
    pub advantage: Option<f64>,
}

/// One event inside a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Signal {
    /// Index of the latest call when it happened, from 0.
    pub call: u64,
    pub kind: String,
    pub detail: String,
}

/// A rollout in one line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Line {
    pub id: String,
    pub task_id: String,
    pub group: String,
    pub reward: Option<f64>,
    pub missing: Option<String>,
    pub answer: Option<String>,
    pub calls: u64,
    pub signals: u64,
}

/// Which rollouts are meant. Everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub step: Option<u64>,
    pub phase: Option<String>,
    /// Bounds of the reward, both included. A rollout without reward is within none.
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
    /// Only those without a reward, if true; only those with one, if false.
    pub missing: Option<bool>,
    /// Rollouts passed over, and most that are found.
    pub offset: u64,
    pub limit: Option<u64>,
}

impl Filter {
    /// Whether a rollout with this reward is meant, as far as rewards go.
    pub fn admits(&self, reward: Option<f64>) -> bool {
        self.missing.is_none_or(|missing| missing == reward.is_none())
            && self.at_least.is_none_or(|least| reward.is_some_and(|r| r >= least))
            && self.at_most.is_none_or(|most| reward.is_some_and(|r| r <= most))
    }
}

/// Whoever takes rows.
pub trait RowWriter {
    /// Writes the calls of a rollout, one row each.
    ///
    /// # Errors
    /// The file's own.
    fn write(&mut self, rollout: &Rollout) -> Result<(), ExportError>;

    /// Writes what is left and says how many rows there are.
    ///
    /// # Errors
    /// The file's own.
    fn finish(self: Box<Self>) -> Result<u64, ExportError>;
}
