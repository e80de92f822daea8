//! From an answer to a reward.

use std::collections::BTreeMap;

use crate::task::Task;

/// What a scorer says about one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    /// The reward that training uses.
    pub reward: f64,
    /// Further figures by name (`exact_match`, `format`, …).
    pub parts: BTreeMap<&'static str, f64>,
}

/// Why an answer could not be scored: the task itself is broken. Such a rollout has no reward.
#[derive(Debug, Clone, thiserror::Error)]
#[error("task {task} cannot be scored: {what}")]
pub struct ScoreError {
    pub task: String,
    pub what: String,
}

/// Compares an answer with a task's reference. Deterministic; may run on any thread.
pub trait Scorer: Send + Sync {
    /// Scores `answer`; `None` is an agent that gave none, which is wrong, not missing.
    ///
    /// # Errors
    /// Only where the task cannot be scored whatever the answer.
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError>;
}
