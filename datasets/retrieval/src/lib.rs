//! Searching a corpus of passages, for agents that retrieve before they answer.
//!
//! The trait [`Retriever`] has three implementations: [`Bm25`] over words, [`Dense`] over
//! embeddings (exact or approximate), and [`Hybrid`], which fuses the rankings of others. Equal
//! queries give equal passages on every run: ties are broken by the passage's number in its
//! corpus. The crate does not depend on libtorch; the embedding model is an [`Encoder`].

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
