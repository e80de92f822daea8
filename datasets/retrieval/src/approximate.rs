//! Approximate nearest neighbours by a hierarchical navigable small-world graph (Malkov and
//! Yashunin 2018), through usearch.
//!
//! Exact search reads every vector for every query; above some hundred thousand passages, a graph
//! finds nearly the same results in a fraction of the time. Vectors are added by one thread in
//! order, so that equal embeddings give equal graphs.

use std::fmt::Display;

use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::dense::{Embeddings, EmbeddingsError, VectorIndex, sort_nearest, unit_query};
use crate::retriever::RetrievalError;

/// Maximum number of concurrent searches; further ones fail.
const THREADS: usize = 256;

/// A graph over the vectors of a corpus.
pub struct ApproximateIndex {
    index: Index,
}

impl ApproximateIndex {
    /// Builds the graph. `connectivity` is the number of neighbours of a node (M, typically 16),
    /// `expansion` the number of candidates kept while building and searching (ef, typically 128;
    /// larger values find more and take longer).
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn new(
        embeddings: &Embeddings,
        connectivity: usize,
        expansion: usize,
    ) -> Result<Self, EmbeddingsError> {
        let index = Index::new(&IndexOptions {
            dimensions: embeddings.dimensions(),
            // Rows have length 1, so the inner product is the cosine.
            metric: MetricKind::IP,
            quantization: ScalarKind::F32,
            connectivity,
            expansion_add: expansion,
            expansion_search: expansion,
            multi: false,
        })
        .map_err(failed)?;
        index.reserve_capacity_and_threads(embeddings.len(), THREADS).map_err(failed)?;
        for (number, row) in embeddings.rows().enumerate() {
            index.add(number as u64, row).map_err(failed)?;
        }
        Ok(Self { index })
    }
}

fn failed(error: impl Display) -> EmbeddingsError {
    EmbeddingsError::Approximate(error.to_string())
}

impl VectorIndex for ApproximateIndex {
    fn nearest(&self, query: &[f32], k: usize) -> Result<Vec<(usize, f32)>, RetrievalError> {
        let query = unit_query(query, self.index.dimensions())?;
        let limit = k.min(self.index.size());
        if limit == 0 {
            return Ok(Vec::new());
        }
        let found = self.index.search(&query, limit);
        let found = found.map_err(|error| RetrievalError::Index(error.to_string()))?;
        let numbers = found.keys.into_iter().map(|key| usize::try_from(key).unwrap_or(usize::MAX));
        let cosines = found.distances.into_iter().map(|distance| 1.0 - distance);
        let mut nearest: Vec<(usize, f32)> = numbers.zip(cosines).collect();
        sort_nearest(&mut nearest);
        Ok(nearest)
    }
}
