//! What can stop a run.

use std::path::PathBuf;

use leyden_lm::LmError;

use crate::config::ConfigError;

/// Errors of training; each sentence names the file, step or task.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Model(#[from] LmError),
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("step {step}: {what}")]
    Step { step: u64, what: String },
    #[error("{0}")]
    Invalid(String),
}

impl TrainError {
    /// The same error; where the weights have diverged, with the step and the way out.
    #[must_use]
    pub fn at(self, step: u64) -> Self {
        match self {
            Self::Model(error @ LmError::NotFinite) => Self::Step {
                step,
                what: format!(
                    "{error}; lower train.learning_rate, or use another dtype, and begin anew or \
                     from an earlier checkpoint"
                ),
            },
            other => other,
        }
    }

    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>, what: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), what: what.to_string() }
    }
}
