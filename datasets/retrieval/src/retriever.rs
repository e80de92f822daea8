//! The common interface of all retrievers.

use leyden_core::Passage;

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub passage: Passage,
    /// The passage's position in its corpus, from 0.
    pub number: usize,
    /// Larger is better; comparable only within one result of one retriever.
    pub score: f64,
}

/// Why a search failed: an infrastructure error, not an empty result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RetrievalError {
    #[error("the index cannot be searched: {0}")]
    Index(String),
    #[error("the query cannot be encoded: {0}")]
    Encoder(String),
}

/// Finds passages for a query. Deterministic and safe for concurrent use.
pub trait Retriever: Send + Sync {
    /// The `k` best passages, best first, ties by passage number; fewer if fewer match. Any text is
    /// a valid query without operators.
    ///
    /// # Errors
    /// If the index or the encoder fails, never because of the query's contents.
    fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Hit>, RetrievalError>;
}
