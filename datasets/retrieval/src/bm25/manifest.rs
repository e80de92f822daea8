//! `leyden-index.json`: the metadata of an index on disk, and errors of indexes.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use leyden_core::rows::LoadError;
use serde::{Deserialize, Serialize};

/// Name of the manifest, whose presence marks a folder as an index.
pub const MANIFEST: &str = "leyden-index.json";

/// Version of the layout, the fields and the analyzer; incremented when any of them changes.
pub(super) const FORMAT: u32 = 1;

/// Metadata of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    /// Always `bm25`.
    pub kind: String,
    pub passages: u64,
    /// SHA-256 over ids, titles and texts of the corpus in order, in hexadecimal.
    pub source_sha256: String,
    /// Total size of the other files.
    pub bytes: u64,
}

/// Only the version, so that other versions are recognised whatever their fields.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Why an index cannot be built or opened.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("there are no passages to index")]
    EmptyCorpus,
    #[error(transparent)]
    Corpus(#[from] LoadError),
    #[error("the folder {} exists and is not empty; remove it or choose another for the index",
        .0.display())]
    Exists(PathBuf),
    #[error("the index {} is being built by another process", .0.display())]
    Busy(PathBuf),
    #[error("the index {} cannot be written: {what}", path.display())]
    Write { path: PathBuf, what: String },
    #[error("there is no index in {}: {MANIFEST} cannot be read ({source})", path.display())]
    NoIndex { path: PathBuf, source: io::Error },
    #[error("the index in {} has format {found}, this program reads format {FORMAT}; \
        build it again", path.display())]
    Version { path: PathBuf, found: u32 },
    #[error("the index in {path} is damaged ({what}); build it again")]
    Damaged { path: String, what: String },
}

impl IndexError {
    pub(super) fn damaged(path: impl Display, what: impl Display) -> Self {
        Self::Damaged { path: path.to_string(), what: what.to_string() }
    }
}

impl Manifest {
    /// Reads the manifest of the index in `folder`.
    ///
    /// # Errors
    /// If there is none, it has another version, or it is damaged.
    pub fn read(folder: &Path) -> Result<Self, IndexError> {
        let text = std::fs::read(folder.join(MANIFEST))
            .map_err(|source| IndexError::NoIndex { path: folder.to_owned(), source })?;
        let damaged = |error| IndexError::damaged(folder.display(), format!("{MANIFEST}: {error}"));
        let Version { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format != FORMAT {
            return Err(IndexError::Version { path: folder.to_owned(), found: format });
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Writes the manifest and syncs it to disk.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = File::create(folder.join(MANIFEST))?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}
