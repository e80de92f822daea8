//! Everything that keeps a sweep from going on, as one sentence each.

use std::path::PathBuf;

use thiserror::Error;

/// Why a sweep cannot be expanded, shared or gone on with.
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
        "{}: there are no cells in it, so it is no sweep folder: give the folder that \
         `leyden sweep` made",
        path.display()
    )]
    NoSweep { path: PathBuf },
    #[error(
        "{}: this folder holds another sweep: {what}; choose another --folder or remove it",
        path.display()
    )]
    OtherSweep { path: PathBuf, what: String },
    #[error(
        "cell {cell}: {} holds a run of another configuration{what}; move that folder away to \
         run the cell anew, or choose another --folder",
        path.display()
    )]
    OtherConfiguration { cell: String, path: PathBuf, what: String },
    #[error(
        "cell {cell}: {} was begun by revision {found}, and this is {here}: go on with that \
         revision, move the folder away, or say --any-revision to mix them",
        path.display()
    )]
    OtherRevision { cell: String, path: PathBuf, found: String, here: String },
}

impl SweepError {
    pub(crate) fn file(path: impl Into<PathBuf>, what: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), what: what.to_string() }
    }
}
