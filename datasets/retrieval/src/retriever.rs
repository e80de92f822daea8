//! What every way of searching has in common.

use leyden_core::Passage;

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub passage: Passage,
    /// The passage's place in its corpus, counted from 0.
    pub number: usize,
    /// Larger is better; comparable only within one answer of one retriever.
    pub score: f64,
}

/// Why a search could not be carried out. Infrastructure, not an empty result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RetrievalError {
    #[error("the index cannot be searched: {0}")]
    Index(String),
    #[error("the query cannot be encoded: {0}")]
    Encoder(String),
}

/// Finds passages for a query. Deterministic; may be asked from many threads at once.
pub trait Retriever: Send + Sync {
    /// The best `k` passages, best first; fewer where fewer match. Scores that are equal are
    /// ordered by the passages' numbers. Any text is a query: nothing in it is an operator.
    ///
    /// # Errors
    /// Where the index or the encoder fails, never because of what the query says.
    fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Hit>, RetrievalError>;
}
