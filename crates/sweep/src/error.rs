//! Errors of sweeps.

use std::path::PathBuf;

use thiserror::Error;

/// Why a sweep cannot be expanded, shared or resumed.
#[derive(Debug, Error)]
pub enum SweepError {
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("{}: variant `{variant}`: {what}", path.display())]
    Variant { path: PathBuf, variant: String, what: String },
    #[error("{}: {key}: {what}", path.display())]
    Key { path: PathBuf, key: String, what: String },
    #[error("seeds `{text}`: {what}")]
    Seeds { text: String, what: String },
    #[error(
        "{}: not a sweep folder, because it has no cells: specify a folder created by \
        `leyden sweep`",
        path.display()
    )]
    NoSweep { path: PathBuf },
    #[error(
        "{}: this folder contains another sweep: {what}; choose another --folder or remove it",
        path.display()
    )]
    OtherSweep { path: PathBuf, what: String },
    #[error(
        "cell {cell}: {} contains a run of another configuration{what}; move that folder away to \
        run the cell again, or choose another --folder",
        path.display()
    )]
    OtherConfiguration { cell: String, path: PathBuf, what: String },
    #[error(
        "cell {cell}: {} was started by revision {found}, and this is {here}: resume it with that \
        revision, move the folder away, or use --any-revision to mix them",
        path.display()
    )]
    OtherRevision { cell: String, path: PathBuf, found: String, here: String },
}

impl SweepError {
    pub(crate) fn file(path: impl Into<PathBuf>, what: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), what: what.to_string() }
    }
}
