//! Dense retrieval with a sentence encoder.
//!
//! Connects the retrieval crate, which has no tensors, to the models, which have no corpora.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use leyden_core::Passage;
use leyden_lm::device::parse_device;
use leyden_lm::encoder::SentenceEncoder;
use leyden_retrieval::{
    ApproximateIndex, Bm25, Dense, Embeddings, EmbeddingsError, Encoder, Hybrid, Origin,
    PassageStore, RetrievalError, Retriever, VectorIndex,
};
use leyden_train::progress::Progress;
use tch::Kind;

use crate::model::encoder_folder;

/// Number of passages encoded between two progress updates.
const CHUNK: usize = 256;

/// Maximum number of passages for exact search, which takes some 50 ms per query on one core.
const MOST_EXACT: usize = 200_000;

/// Number of passages of each ranking that a fusion uses.
const FUSED: usize = 100;

/// A sentence encoder for concurrent use: calls are serialised, and each uses all of libtorch's
/// threads.
pub struct TextEncoder {
    inner: Mutex<SentenceEncoder>,
    fingerprint: String,
}

impl TextEncoder {
    /// Loads the encoder in `folder` in f32 on `device`.
    ///
    /// # Errors
    /// An unknown device; a folder that is not an encoder, with the missing or invalid file.
    pub fn load(folder: &Path, device: &str) -> Result<Self> {
        let inner = SentenceEncoder::load(folder, parse_device(device)?, Kind::Float)?;
        Ok(Self { inner: Mutex::new(inner), fingerprint: encoder_folder::fingerprint(folder)? })
    }

    /// SHA-256 over the encoder's files.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl Encoder for TextEncoder {
    fn encode(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError> {
        // The encoder is immutable, so a panic of another thread leaves it valid.
        let encoder = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        encoder.encode(texts).map_err(|error| RetrievalError::Encoder(error.to_string()))
    }
}

/// The embeddings of the passages of `index`, in order. They are read from the file `kept` if it
/// exists; otherwise they are computed and, if `kept` is given, written to it.
///
/// # Errors
/// A file of another encoder, corpus or version, or one that cannot be read or written.
pub fn embed(encoder: &TextEncoder, index: &Bm25, kept: Option<&Path>) -> Result<Embeddings> {
    let origin = Origin {
        encoder: encoder.fingerprint.clone(),
        source_sha256: index.manifest().source_sha256.clone(),
    };
    if let Some(kept) = kept.filter(|kept| kept.exists()) {
        return Ok(Embeddings::load(kept, &origin)?);
    }
    let total = PassageStore::len(index);
    let mut progress = Progress::new("encoding", total as u64, 0);
    let mut rows = Vec::with_capacity(total);
    for start in (0..total).step_by(CHUNK) {
        let passages = (start..total.min(start + CHUNK)).map(|number| index.passage(number));
        let texts = passages.map(|passage| Ok(text(&passage?)));
        rows.extend(encoder.encode(&texts.collect::<Result<Vec<_>, RetrievalError>>()?)?);
        progress.update(rows.len() as u64, String::new);
    }
    progress.end();
    let embeddings = Embeddings::new(rows).context("the encoder's embeddings are invalid")?;
    if let Some(kept) = kept {
        embeddings.save(kept, &origin)?;
    }
    Ok(embeddings)
}

/// An HNSW graph over `embeddings`: 16 neighbours per node, 128 candidates per search.
///
/// # Errors
/// Insufficient memory.
pub fn graph(embeddings: &Embeddings) -> Result<ApproximateIndex, EmbeddingsError> {
    ApproximateIndex::new(embeddings, 16, 128)
}

/// An index over `embeddings`, exact if they are few, else a graph; also returns its kind.
///
/// # Errors
/// Insufficient memory for the graph.
pub fn nearest(
    embeddings: Embeddings,
) -> Result<(Box<dyn VectorIndex>, &'static str), EmbeddingsError> {
    if embeddings.len() <= MOST_EXACT {
        return Ok((Box::new(embeddings), "exact"));
    }
    eprintln!("building a graph over {} passages for approximate search", embeddings.len());
    Ok((Box::new(graph(&embeddings)?), "approximate"))
}

/// The encoded text of a passage, the same as in BM25.
fn text(passage: &Passage) -> String {
    format!("{}\n{}", passage.title, passage.text)
}

/// Reciprocal-rank fusion of BM25 and `dense` over the same corpus.
pub fn hybrid(bm25: Arc<Bm25>, dense: Arc<Dense>) -> Hybrid {
    Hybrid::new(vec![bm25, dense as Arc<dyn Retriever>], FUSED)
}
