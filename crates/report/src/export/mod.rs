//! Rollouts as data: searching, listing, and exporting to other programs.
//!
//! An exported row is one model call, because trainers train on calls: prompt tokens, response
//! tokens, their log-probabilities, and the rollout's reward. The columns ([`COLUMNS`]) have the
//! names that verl and prime-rl use, so that no renaming is needed:
//!
//! - verl: the fields of its `AgentLoopOutput` (`prompt_ids`, `response_ids`, `response_mask`,
//!   `response_logprobs`, `reward_score`), the `uid` by which its group advantages are formed,
//!   and the keys of its rollout dumps (`input`, `output`, `gts`, `score`, `step`).
//! - prime-rl: the fields of its `TrainingSample` (`token_ids`, `mask`, `logprobs`,
//!   `temperatures`, `env_name`, `advantages`), one value per token of prompt and response.
//!
//! A full export has the tokens twice, in both layouts; a file for one reader omits the other's
//! columns. Missing values are null: a rollout without reward has no `score` of 0.

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

/// One rollout with everything that was stored of it.
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
    /// One per response token; empty if the inference server reported none.
    pub logprobs: Vec<f32>,
    /// The prompt as text, if it was stored.
    pub prompt: Option<String>,
    pub text: String,
    /// `stop` or `length`.
    pub finish: String,
    pub policy_version: u64,
    /// Whether a grammar restricted the sampler.
    pub constrained: bool,
    /// Temperature at which the response was sampled.
    pub temperature: Option<f64>,
    /// The call's credit, and its advantage; absent if it was not trained on.
    pub credit: Option<f64>,
    pub advantage: Option<f64>,
}

/// One event inside a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Signal {
    /// Index of the latest call when the signal was emitted, from 0.
    pub call: u64,
    pub kind: String,
    pub detail: String,
}

/// Summary of a rollout, for listings.
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

/// Selects rollouts. All conditions that are set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub step: Option<u64>,
    pub phase: Option<String>,
    /// Bounds of the reward, inclusive. A rollout without reward satisfies neither.
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
    /// If true, only rollouts without a reward; if false, only those with one.
    pub missing: Option<bool>,
    /// Number of rollouts skipped, and maximum number returned.
    pub offset: u64,
    pub limit: Option<u64>,
}

impl Filter {
    /// Whether a rollout with this reward passes the conditions on rewards.
    pub fn admits(&self, reward: Option<f64>) -> bool {
        self.missing.is_none_or(|missing| missing == reward.is_none())
            && self.at_least.is_none_or(|least| reward.is_some_and(|r| r >= least))
            && self.at_most.is_none_or(|most| reward.is_some_and(|r| r <= most))
    }
}

/// A sink for rows.
pub trait RowWriter {
    /// Writes the calls of a rollout, one row each.
    ///
    /// # Errors
    /// Failure to write the file.
    fn write(&mut self, rollout: &Rollout) -> Result<(), ExportError>;

    /// Flushes the remaining rows and returns the total number of rows.
    ///
    /// # Errors
    /// Failure to write the file.
    fn finish(self: Box<Self>) -> Result<u64, ExportError>;
}
