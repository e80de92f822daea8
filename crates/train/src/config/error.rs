//! Errors in experiment files.

use std::path::PathBuf;

/// An error in an experiment file, as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("--set {text}: {what}")]
    Override { text: String, what: String },
    #[error("{}: {key}: {what}", path.display())]
    Value { path: PathBuf, key: String, what: String },
}
