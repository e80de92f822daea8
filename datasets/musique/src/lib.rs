//! MuSiQue: questions of two to four hops over Wikipedia (Trivedi et al. 2022).
//!
//! Each question is composed of single-hop ones, so that no passage alone answers it. The crate has
//! the [`loader`] of its rows, the [`corpus`] of their paragraphs, the [`metric`]s of its official
//! evaluator, the [`scorer`] that computes a reward from them, and the official table over a file
//! of predictions ([`evaluation`]). [`golden`] compares the metrics with the original program.

pub mod corpus;
pub mod evaluation;
pub mod golden;
pub mod loader;
pub mod metric;
pub mod scorer;

pub use evaluation::{Evaluation, evaluate};
pub use scorer::{MusiqueScorer, Reward};
