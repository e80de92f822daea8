//! Finished rollouts as the page shows them, from wherever they are kept.
//!
//! The page does not know how a run folder or a server keeps rollouts; whoever serves the page
//! brings a [`Rollouts`]. Its methods are called on a thread that may block.

use serde::{Deserialize, Serialize};

/// Finished rollouts of a run.
pub trait Rollouts: Send + Sync + 'static {
    /// The rollouts of one step and phase, in the order of their ids.
    ///
    /// # Errors
    /// Where the store cannot be read.
    fn list(&self, query: &Query) -> Result<Listing, Unreadable>;

    /// One rollout with its calls; `None` where there is no such.
    ///
    /// # Errors
    /// Where the store cannot be read.
    fn show(&self, key: &Key) -> Result<Option<Detail>, Unreadable>;
}

/// Nothing is kept.
impl Rollouts for () {
    fn list(&self, _: &Query) -> Result<Listing, Unreadable> {
        Ok(Listing::default())
    }

    fn show(&self, _: &Key) -> Result<Option<Detail>, Unreadable> {
        Ok(None)
    }
}

/// Why rollouts cannot be read, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Which rollouts are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Query {
    /// The latest step if absent.
    pub step: Option<u64>,
    /// `train`, `greedy` or `sampled`; the phase of the latest rollouts if absent.
    pub phase: Option<String>,
    /// Rollouts passed over.
    #[serde(default)]
    pub offset: u64,
}

/// The address of a rollout within a run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Key {
    pub step: u64,
    pub phase: String,
    pub id: u64,
}

/// Rollouts of one step and phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Listing {
    /// Where these are from; `None` while there are none.
    pub step: Option<u64>,
    pub phase: Option<String>,
    /// All phases that the run has.
    pub phases: Vec<String>,
    /// The nearest steps before and after that have rollouts of this phase.
    pub earlier: Option<u64>,
    pub later: Option<u64>,
    /// Rollouts of the step and phase, of which `rows` may be a part.
    pub total: u64,
    pub rows: Vec<Summary>,
}

/// One line of a listing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    pub id: u64,
    pub task_id: String,
    /// Rollouts of one task in one step share a group.
    pub group: u64,
    pub reward: Option<f64>,
    /// Why there is no reward.
    pub missing: Option<String>,
    pub answer: Option<String>,
    pub calls: u64,
    pub signals: u64,
}

/// One rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Detail {
    pub step: u64,
    pub phase: String,
    pub id: u64,
    pub task_id: String,
    pub group: u64,
    pub question: String,
    pub gold: String,
    pub answer: Option<String>,
    pub reward: Option<f64>,
    pub missing: Option<String>,
    pub calls: Vec<CallDetail>,
    pub signals: Vec<SignalDetail>,
}

/// One model call of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CallDetail {
    pub role: String,
    /// The rendered prompt; absent where only its ids were kept.
    pub prompt: Option<String>,
    /// Whether `prompt` is only what was added since the call before: tool results, mostly.
    pub continues: bool,
    pub prompt_tokens: u64,
    pub text: String,
    pub response_tokens: u64,
    pub finish: String,
    pub policy_version: u64,
    /// What the credit rule gave the call; absent where it was not trained on.
    pub credit: Option<f64>,
    pub advantage: Option<f64>,
}

/// One event inside a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SignalDetail {
    /// Index of the latest call when it happened, from 0.
    pub call: u64,
    pub kind: String,
    pub detail: String,
}
