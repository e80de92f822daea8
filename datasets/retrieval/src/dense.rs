//! Search by embeddings: texts as vectors, similarity as the cosine of their angle.
//!
//! An [`Encoder`] embeds texts; a [`VectorIndex`] finds the nearest vectors, exactly
//! ([`Embeddings`]) or approximately ([`crate::ApproximateIndex`]); a [`PassageStore`] has the
//! passages of the vectors, as a list in memory or a BM25 index of the same corpus.

use std::sync::Arc;

use leyden_core::Passage;
use rayon::prelude::*;

use crate::retriever::{Hit, RetrievalError, Retriever};

/// Embeds texts.
pub trait Encoder: Send + Sync {
    /// Returns one vector per text, all of equal length; the texts of a call may be encoded as a
    /// batch.
    ///
    /// # Errors
    /// If the model fails.
    fn encode(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError>;
}

/// Nearest-neighbour search over vectors.
pub trait VectorIndex: Send + Sync {
    /// Number and cosine of the `k` nearest vectors, nearest first, ties by number.
    ///
    /// # Errors
    /// If `query` has another length than the vectors or a component that is not finite.
    fn nearest(&self, query: &[f32], k: usize) -> Result<Vec<(usize, f32)>, RetrievalError>;
}

/// Access to passages by number.
pub trait PassageStore: Send + Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Errors
    /// If the passage does not exist or cannot be read.
    fn passage(&self, number: usize) -> Result<Passage, RetrievalError>;
}

impl PassageStore for Vec<Passage> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn passage(&self, number: usize) -> Result<Passage, RetrievalError> {
        let missing = || RetrievalError::Index(format!("there is no passage {number}"));
        self.get(number).cloned().ok_or_else(missing)
    }
}

/// Why vectors cannot be searched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EmbeddingsError {
    #[error("there are no embeddings")]
    Empty,
    #[error("the embedding {number} has {found} components where {expected} are expected")]
    Length { number: usize, found: usize, expected: usize },
    #[error("the embedding {0} has a component that is not finite")]
    NotFinite(usize),
    #[error("the approximate index failed: {0}")]
    Approximate(String),
}

/// Vectors of a corpus as a matrix of unit rows with exact search: every query is compared with
/// every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Row-major.
    values: Vec<f32>,
    dimensions: usize,
}

impl Embeddings {
    /// Takes one vector per passage, all of the same dimension; they are scaled to length 1. A
    /// vector of zeros has cosine 0 with everything.
    ///
    /// # Errors
    /// If there are no vectors, their dimensions differ or are 0, or a component is not finite.
    pub fn new(rows: impl IntoIterator<Item = impl AsRef<[f32]>>) -> Result<Self, EmbeddingsError> {
        let mut values = Vec::new();
        let mut dimensions = 0;
        for (number, row) in rows.into_iter().enumerate() {
            let row = row.as_ref();
            if number == 0 {
                dimensions = row.len();
            }
            if row.len() != dimensions {
                let (found, expected) = (row.len(), dimensions);
                return Err(EmbeddingsError::Length { number, found, expected });
            }
            values.extend(unit(row).ok_or(EmbeddingsError::NotFinite(number))?);
        }
        if values.is_empty() {
            Err(EmbeddingsError::Empty)
        } else {
            Ok(Self { values, dimensions })
        }
    }

    /// Takes concatenated rows of length 1 without scaling.
    pub(crate) fn of_unit_rows(
        values: Vec<f32>,
        dimensions: usize,
    ) -> Result<Self, EmbeddingsError> {
        if values.is_empty() || dimensions == 0 {
            return Err(EmbeddingsError::Empty);
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(EmbeddingsError::NotFinite(at / dimensions)),
            None => Ok(Self { values, dimensions }),
        }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len() / self.dimensions
    }

    /// Always false, since empty matrices are rejected.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Components of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The vectors in order, each of length 1.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions)
    }
}

/// The vector scaled to length 1; zeros stay. `None` if a component is not finite.
fn unit(row: &[f32]) -> Option<Vec<f32>> {
    // In double precision, because squares of large components overflow f32.
    let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if !square.is_finite() {
        return None;
    }
    let scale = if square > 0.0 { square.sqrt().recip() } else { 0.0 };
    Some(row.iter().map(|&x| (f64::from(x) * scale) as f32).collect())
}

/// A query as a unit vector of the index's dimension.
pub(crate) fn unit_query(query: &[f32], dimensions: usize) -> Result<Vec<f32>, RetrievalError> {
    if query.len() != dimensions {
        let what = format!("it has {} components, the index {dimensions}", query.len());
        return Err(RetrievalError::Encoder(what));
    }
    let not_finite = || RetrievalError::Encoder("it has a component that is not finite".to_owned());
    unit(query).ok_or_else(not_finite)
}

/// Sorts by descending cosine, ties by number.
pub(crate) fn sort_nearest(found: &mut [(usize, f32)]) {
    found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
}

impl VectorIndex for Embeddings {
    fn nearest(&self, query: &[f32], k: usize) -> Result<Vec<(usize, f32)>, RetrievalError> {
        /// Rows per parallel task.
        const BLOCK: usize = 4096;
        let query = unit_query(query, self.dimensions)?;
        let best_of = |(block, values): (usize, &[f32])| {
            let rows = values.chunks_exact(self.dimensions).enumerate();
            let mut best: Vec<(usize, f32)> =
                rows.map(|(i, row)| (block * BLOCK + i, dot(row, &query))).collect();
            keep_nearest(&mut best, k);
            best
        };
        let blocks = self.values.par_chunks(BLOCK * self.dimensions).enumerate();
        let mut best: Vec<(usize, f32)> = blocks.flat_map_iter(best_of).collect();
        keep_nearest(&mut best, k);
        sort_nearest(&mut best);
        Ok(best)
    }
}

/// Keeps the `k` nearest, in no particular order.
fn keep_nearest(found: &mut Vec<(usize, f32)>, k: usize) {
    if k > 0 && found.len() > k {
        found.select_nth_unstable_by(k - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }
    found.truncate(k);
}

/// The dot product with eight accumulators, which compilers vectorise; a single sum would have to
/// be added in order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Search by embeddings over a corpus.
pub struct Dense {
    encoder: Arc<dyn Encoder>,
    index: Box<dyn VectorIndex>,
    passages: Arc<dyn PassageStore>,
    query_prefix: String,
}

impl Dense {
    /// The index must have one vector for each of `passages`, in order.
    pub fn new(
        encoder: Arc<dyn Encoder>,
        index: Box<dyn VectorIndex>,
        passages: Arc<dyn PassageStore>,
    ) -> Self {
        Self { encoder, index, passages, query_prefix: String::new() }
    }

    /// Prepends `prefix` to every query, as some models require (E5: `query: `).
    #[must_use]
    pub fn with_query_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.query_prefix = prefix.into();
        self
    }
}

impl Retriever for Dense {
    fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Hit>, RetrievalError> {
        let vectors = self.encoder.encode(&[format!("{}{query}", self.query_prefix)])?;
        let [vector] = vectors.as_slice() else {
            let what = format!("the encoder returned {} vectors for one text", vectors.len());
            return Err(RetrievalError::Encoder(what));
        };
        let hit = |(number, cosine)| {
            let passage = self.passages.passage(number)?;
            Ok(Hit { passage, number, score: f64::from(cosine) })
        };
        self.index.nearest(vector, k)?.into_iter().map(hit).collect()
    }
}
