//! The scorer trait: from an answer to a reward.

use std::collections::BTreeMap;

use crate::task::Task;

/// The score of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Score {
    /// The reward that training uses.
    pub reward: f64,
    /// Further metrics by name (`exact_match`, `format`, …).
    pub parts: BTreeMap<&'static str, f64>,
}

/// The answer could not be scored because the task itself is invalid. The rollout has no reward.
#[derive(Debug, Clone, thiserror::Error)]
#[error("task {task} cannot be scored: {what}")]
pub struct ScoreError {
    pub task: String,
    pub what: String,
}

/// Compares an answer with a task's reference. Deterministic; may run on any thread.
pub trait Scorer: Send + Sync {
    /// Scores `answer`. `None` means the agent gave no answer, which is scored as wrong, not
    /// missing.
    ///
    /// # Errors
    /// Only if the task cannot be scored, regardless of the answer.
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError>;

    /// What an answer counts for in a majority vote: equal texts are equal answers. By default the
    /// whole answer, with normalised white space.
    fn vote(&self, answer: &str) -> String {
        answer.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
