//! Search by a sentence encoder: where libtorch's models meet the search of corpora.
//!
//! The search knows no tensors and the models know no corpora; here one is handed to the other.

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

/// Passages that are encoded between two reports of progress.
const CHUNK: usize = 256;

/// Beyond so many passages a query looks at a part of them: some 50 ms on a core to see all.
const MOST_EXACT: usize = 200_000;

/// Passages of each ranking that a fusion looks at.
const FUSED: usize = 100;

/// A sentence encoder that may be asked from many threads: they take turns, and each turn uses
/// all of libtorch's threads.
pub struct TextEncoder {
    inner: Mutex<SentenceEncoder>,
    fingerprint: String,
}

impl TextEncoder {
    /// Reads the encoder in `folder`, to compute in f32 on `device`.
    ///
    /// # Errors
    /// An unknown device; a folder that is no encoder, with the file that is missing or wrong.
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
        // Nothing in it changes, so that a panic of another thread has left nothing half done.
        let encoder = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        encoder.encode(texts).map_err(|error| RetrievalError::Encoder(error.to_string()))
    }
}

/// The vectors of the passages of `index`, in their order. They are read from the file `kept`
/// where it is there, else made and, where there is a `kept`, written to it.
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
    let embeddings = Embeddings::new(rows).context("the encoder's vectors are of no use")?;
    if let Some(kept) = kept {
        embeddings.save(kept, &origin)?;
    }
    Ok(embeddings)
}

/// A graph of usual size over `embeddings`: 16 neighbours a node, 128 candidates a search.
///
/// # Errors
/// Where memory does not suffice.
pub fn graph(embeddings: &Embeddings) -> Result<ApproximateIndex, EmbeddingsError> {
    ApproximateIndex::new(embeddings, 16, 128)
}

/// The nearest of `embeddings`, found exactly where they are few, else by a graph; and which.
///
/// # Errors
/// Where memory does not suffice for the graph.
pub fn nearest(
    embeddings: Embeddings,
) -> Result<(Box<dyn VectorIndex>, &'static str), EmbeddingsError> {
    if embeddings.len() <= MOST_EXACT {
        return Ok((Box::new(embeddings), "exact"));
    }
    eprintln!("building a graph over {} passages for approximate search", embeddings.len());
    Ok((Box::new(graph(&embeddings)?), "approximate"))
}

/// What is encoded of a passage: what BM25 searches in, too.
fn text(passage: &Passage) -> String {
    format!("{}\n{}", passage.title, passage.text)
}

/// BM25 and `dense`, over the same corpus, fused by reciprocal rank.
pub fn hybrid(bm25: Arc<Bm25>, dense: Arc<Dense>) -> Hybrid {
    Hybrid::new(vec![bm25, dense as Arc<dyn Retriever>], FUSED)
}
