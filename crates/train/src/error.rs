//! What can stop a run.

use std::path::PathBuf;

/// Errors of training; each sentence names the file, step or task.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error(transparent)]
    Model(#[from] leyden_lm::LmError),
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("step {step}: {what}")]
    Step { step: u64, what: String },
    #[error("{0}")]
    Invalid(String),
}

impl TrainError {
    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>, what: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), what: what.to_string() }
    }
}
