//! Searching a corpus of passages, for agents that retrieve before they answer.
//!
//! One interface, [`Retriever`], and behind it the three ways of the literature: [`Bm25`] over
//! words, [`Dense`] over embeddings (exact or approximate), and [`Hybrid`], which fuses the
//! rankings of others. Whoever searches gets the same passages for the same query on every
//! run: ties are broken by the passage's number in its corpus. No libtorch in here; the
//! embedding model comes in as an [`Encoder`].

mod approximate;
mod bm25;
mod corpus;
mod dense;
mod fusion;
mod recall;
mod retriever;
mod stored;

pub use approximate::ApproximateIndex;
pub use bm25::{Bm25, BuildOptions, IndexError, MANIFEST, Manifest};
pub use corpus::PassageFile;
pub use dense::{Dense, Embeddings, EmbeddingsError, Encoder, PassageStore, VectorIndex};
pub use fusion::{Hybrid, RRF_CONSTANT, reciprocal_rank_fusion};
pub use recall::recall_at;
pub use retriever::{Hit, RetrievalError, Retriever};
pub use stored::{EMBEDDINGS, Origin, StoredError};
