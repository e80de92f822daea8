//! Errors of reading and writing rollouts.

use std::path::{Path, PathBuf};

/// An error of an export or a listing.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("there is no run folder at {0}: give the folder that `leyden run` wrote")]
    NoFolder(PathBuf),
    #[error(
        "{0} has no rollouts.sqlite: give a run folder, or the folder that `leyden serve --store` wrote"
    )]
    NoStore(PathBuf),
    #[error("{0} is not a store of rollouts: it is not a SQLite file")]
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
    /// Converts SQLite's error into one about the file.
    pub(super) fn database(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => Self::NotAStore(path),
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Self::Damaged { path, source },
            _ => Self::Read { path, source },
        }
    }
}
