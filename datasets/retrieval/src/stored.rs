//! Embeddings on disk, so that a corpus is encoded once.
//!
//! One safetensors file: a matrix, with the hashes of encoder and corpus in its header. Vectors of
//! another encoder or corpus would silently give wrong results, so the hashes are compared before
//! use.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::dense::Embeddings;

/// Name of the file in the folder of a corpus's index.
pub const EMBEDDINGS: &str = "leyden-embeddings.safetensors";

/// Version of the layout; incremented when it changes.
const FORMAT: &str = "1";
const MATRIX: &str = "embeddings";

/// Origin of embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// A unique identifier of the encoder, such as a hash of its files.
    pub encoder: String,
    /// [`Manifest::source_sha256`](crate::Manifest) of the corpus.
    pub source_sha256: String,
}

/// Why stored embeddings cannot be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("the embeddings {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the embeddings {} cannot be written: {what}", path.display())]
    Write { path: PathBuf, what: String },
    #[error("the embeddings {} are damaged ({what}); remove the file to compute them again",
        path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("the embeddings {} have format {found}, this program reads format {FORMAT}; remove \
    the file to compute them again", path.display())]
    Version { path: PathBuf, found: String },
    #[error("the embeddings {} were computed {what}; remove the file to compute them again, \
        or keep these elsewhere", path.display())]
    Other { path: PathBuf, what: &'static str },
}

impl Embeddings {
    /// Writes the vectors to `path` atomically.
    ///
    /// # Errors
    /// Failures of the file system.
    pub fn save(&self, path: &Path, origin: &Origin) -> Result<(), StoredError> {
        let failed = |what: &dyn ToString| StoredError::Write {
            path: path.to_owned(),
            what: what.to_string(),
        };
        let bytes: Vec<u8> = self.rows().flatten().flat_map(|x| x.to_le_bytes()).collect();
        let shape = vec![self.len(), self.dimensions()];
        let matrix = TensorView::new(Dtype::F32, shape, &bytes).map_err(|e| failed(&e))?;
        let header = [
            ("format", FORMAT),
            ("encoder", &origin.encoder),
            ("source_sha256", &origin.source_sha256),
        ];
        let header = header.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let header = Some(HashMap::from(header));
        let file = serialize([(MATRIX, matrix)], header).map_err(|e| failed(&e))?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let write = || {
            let mut temporary = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
            temporary.write_all(&file)?;
            temporary.as_file().sync_all()?;
            temporary.persist(path).map_err(|error| error.error)
        };
        write().map(|_| ()).map_err(|error: std::io::Error| failed(&error))
    }

    /// Reads the vectors written by [`Embeddings::save`], bit for bit.
    ///
    /// # Errors
    /// If the file does not exist, is damaged, or has another version or another origin than
    /// `origin`.
    pub fn load(path: &Path, origin: &Origin) -> Result<Self, StoredError> {
        let file = std::fs::read(path)
            .map_err(|source| StoredError::Read { path: path.to_owned(), source })?;
        let damaged = |what: String| StoredError::Damaged { path: path.to_owned(), what };
        let broken = |error: safetensors::SafeTensorError| damaged(error.to_string());
        let (_, header) = SafeTensors::read_metadata(&file).map_err(broken)?;
        let header = header.metadata().clone().unwrap_or_default();
        let get = |key: &str| header.get(key).map(String::as_str).unwrap_or_default();
        match get("format") {
            FORMAT => {}
            "" => return Err(damaged("its header has no format".to_owned())),
            other => {
                let found = other.to_owned();
                return Err(StoredError::Version { path: path.to_owned(), found });
            }
        }
        let other = |what| StoredError::Other { path: path.to_owned(), what };
        if get("encoder") != origin.encoder {
            return Err(other("by another encoder"));
        }
        if get("source_sha256") != origin.source_sha256 {
            return Err(other("from another corpus"));
        }
        let tensors = SafeTensors::deserialize(&file).map_err(broken)?;
        let matrix = tensors.tensor(MATRIX).map_err(broken)?;
        let (Dtype::F32, &[_, dimensions]) = (matrix.dtype(), matrix.shape()) else {
            return Err(damaged("it has no matrix of f32".to_owned()));
        };
        let (numbers, _) = matrix.data().as_chunks::<4>();
        let values = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Self::of_unit_rows(values, dimensions).map_err(|error| damaged(error.to_string()))
    }
}
