//! Errors of training.

use std::path::PathBuf;

use leyden_lm::LmError;

use crate::config::ConfigError;

/// Errors of training; each message names the file, step or task.
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
    /// Adds the step and a remedy to the error of diverged weights; other errors are unchanged.
    #[must_use]
    pub fn at(self, step: u64) -> Self {
        match self {
            Self::Model(error @ LmError::NotFinite) => Self::Step {
                step,
                what: format!(
                    "{error}; lower train.learning_rate, or use another dtype, and restart or \
                     resume from an earlier checkpoint"
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
