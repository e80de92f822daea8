//! Finished rollouts as the page shows them, independent of their storage.
//!
//! The page does not depend on how a run folder or a server stores rollouts; its host supplies a
//! [`Rollouts`]. Its methods are called on a thread that may block.

use serde::{Deserialize, Serialize};

/// Finished rollouts of a run.
pub trait Rollouts: Send + Sync + 'static {
    /// The rollouts of one step and phase, in the order of their ids.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn list(&self, query: &Query) -> Result<Listing, Unreadable>;

    /// One rollout with its calls; `None` if it does not exist.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn show(&self, key: &Key) -> Result<Option<Detail>, Unreadable>;
}

/// A source without rollouts.
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

/// Selects the rollouts to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Query {
    /// The latest step if absent.
    pub step: Option<u64>,
    /// `train`, `greedy` or `sampled`; the phase of the latest rollouts if absent.
    pub phase: Option<String>,
    /// Number of rollouts to skip.
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
    /// Their step and phase; `None` if there are no rollouts.
    pub step: Option<u64>,
    pub phase: Option<String>,
    /// All phases of the run.
    pub phases: Vec<String>,
    /// The nearest steps before and after that have rollouts of this phase.
    pub earlier: Option<u64>,
    pub later: Option<u64>,
    /// Total rollouts of the step and phase; `rows` may be a part of them.
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
    /// The rendered prompt; absent if only its ids were stored.
    pub prompt: Option<String>,
    /// Whether `prompt` holds only the part added since the previous call (mostly tool results).
    pub continues: bool,
    pub prompt_tokens: u64,
    pub text: String,
    pub response_tokens: u64,
    pub finish: String,
    pub policy_version: u64,
    /// The credit assigned to the call; absent if it was not trained on.
    pub credit: Option<f64>,
    pub advantage: Option<f64>,
}

/// One event inside a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SignalDetail {
    /// Index of the latest call at that time, from 0.
    pub call: u64,
    pub kind: String,
    pub detail: String,
}
