//! Why rollouts cannot be read or written, as one sentence each.

use std::path::{Path, PathBuf};

/// Why an export or a listing is not made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("there is no run folder at {0}: give the folder that `leyden run` wrote")]
    NoFolder(PathBuf),
    #[error(
        "{0} holds no rollouts.sqlite: give a run folder, or the folder that `leyden serve --store` wrote"
    )]
    NoStore(PathBuf),
    #[error("{0} is not a store of rollouts: it is no SQLite file")]
    NotAStore(PathBuf),
    #[error("{path} is damaged ({source}): restore it from a copy")]
    Damaged { path: PathBuf, source: rusqlite::Error },
    #[error("cannot read rollouts from {path}: {source}")]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("{path}, rollout {id}, call {call}: {what}; the store is damaged")]
    Row { path: PathBuf, id: String, call: u64, what: String },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {message}")]
    Parquet { path: PathBuf, message: String },
}

impl ExportError {
    /// SQLite's error as a sentence about the file.
    pub(super) fn database(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::NotAStore(path),
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Self::Damaged { path, source },
            _ => Self::Read { path, source },
        }
    }
}
