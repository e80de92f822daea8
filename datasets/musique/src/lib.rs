//! MuSiQue: questions of two to four hops over Wikipedia (Trivedi et al. 2022).
//!
//! Each question is composed of single-hop ones, so that no passage alone answers it. The
//! dataset's parts as code: the [`loader`] of its rows, the [`corpus`] of their paragraphs,
//! the [`metric`]s of its official evaluator, the [`scorer`] that makes a reward of them, and
//! the official table over a file of predictions ([`evaluation`]). What the original program
//! can be asked about is compared with it by [`golden`].

pub mod corpus;
pub mod evaluation;
pub mod golden;
pub mod loader;
pub mod metric;
pub mod scorer;

pub use evaluation::{Evaluation, evaluate};
pub use scorer::{MusiqueScorer, Reward};
