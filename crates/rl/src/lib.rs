//! The mathematics of reinforcement learning, as pure functions on plain slices.
//!
//! A batch is a number of [`Rows`]: ragged token sequences with a mask, laid flat one after
//! the other. Four steps lead from returns to a gradient, each a folder with one file per
//! algorithm:
//!
//! 1. [`credit`]: what each call of an episode earned;
//! 2. [`advantage`]: how much better than expected that was, per token;
//! 3. [`aggregate`]: the weight with which each token counts in the batch;
//! 4. [`loss`]: a scalar and, in closed form, its derivative with respect to each token's
//!    log-probability. Whoever computed the log-probabilities back-propagates from there.
//!
//! [`config`] chooses among them, [`assign`] leads through the first two, [`objective`] joins
//! the loss with [`kl`], entropy and the [`correction`] of the sampler; [`capabilities`] says
//! what a run must have for a choice to be possible.
//!
//! Weights are computed once over the whole batch and losses are weighted sums, so splitting
//! the rows into micro-batches changes neither loss nor gradient. Everything is f64. Values
//! outside the mask are never read, so a NaN there cannot leak.
//!
//! The numbers agree with those of verl (`core_algos`), which [`golden`] recomputes.

pub mod advantage;
pub mod aggregate;
pub mod assign;
pub mod capabilities;
pub mod config;
pub mod correction;
pub mod credit;
pub mod golden;
pub mod kl;
pub mod loss;
pub mod mismatch;
pub mod objective;
mod rows;
pub mod shaping;
pub mod statistics;

pub use rows::{Part, Rows, ShapeError};
