//! Errors of the store.

use std::path::PathBuf;

use super::types::RolloutState;

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("Rollout not found: {0}")]
    UnknownRollout(String),
    #[error("Rollout {id}: cannot transition {} -> {}", from.name(), to.name())]
    Transition { id: String, from: RolloutState, to: RolloutState },
    #[error("rollout {rollout_id} attempt {attempt_id} is not leased to worker {worker}: {why}")]
    NotLeased { rollout_id: String, attempt_id: String, worker: String, why: &'static str },
    #[error("an event of {bytes} bytes is over the limit of {limit} (store.max_event_bytes)")]
    EventTooLarge { bytes: usize, limit: usize },
    #[error(
        "rollout {id} would hold {bytes} bytes of events, over the limit of {limit} \
         (store.max_rollout_bytes)"
    )]
    RolloutTooLarge { id: String, bytes: u64, limit: u64 },
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error("the store failed: {0}")]
    Database(String),
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            let what = "the disk is full, so nothing of this request was stored; free some space \
                        and send it again";
            return Self::Database(what.to_owned());
        }
        Self::Database(error.to_string())
    }
}
