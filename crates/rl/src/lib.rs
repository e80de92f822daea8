//! Reinforcement learning algorithms as pure functions on slices.
//!
//! The shape of a batch is [`Rows`]: ragged token sequences with a mask, stored flat. Four steps
//! lead from rewards to a gradient:
//!
//! 1. [`credit`]: the return of each call of a trajectory;
//! 2. [`advantage`]: how much better than expected that was, per token;
//! 3. [`aggregate`]: the weight of each token in the batch;
//! 4. [`loss`]: a scalar and, in closed form, its derivative with respect to each token's
//!    log-probability. The caller back-propagates from there.
//!
//! [`config`] selects the algorithms, [`assign`] runs the first two steps, [`objective`] combines
//! the loss with [`kl`], entropy and the [`correction`] of the sampler; [`needs`] lists the
//! capabilities that a run must have for a rule. Errors are in [`error`].
//!
//! A rule is one file that implements its kind's trait, and one row in its kind's registry
//! (`credit/mod.rs`, `advantage/mod.rs`, `loss/mod.rs`). Imports are acyclic: a rule never imports
//! the registry that lists it.
//!
//! Weights are computed once over the whole batch and losses are weighted sums, so splitting
//! the rows into micro-batches changes neither loss nor gradient. Everything is f64. Values
//! outside the mask are never read, so a NaN there cannot leak.
//!
//! ```
//! use leyden_rl::Rows;
//! use leyden_rl::config::AlgorithmConfig;
//! use leyden_rl::credit::Trajectory;
//!
//! // Two rollouts of one task: two calls that earned 1 in the end, one that earned 0.
//! let trajectories = [Trajectory::of_calls(0, 1.0, 2), Trajectory::of_calls(0, 0.0, 1)];
//! let rows = Rows::dense(&[3, 2, 4]); // tokens of each call
//! let assigned = AlgorithmConfig::default().assign(&trajectories, &rows, None).unwrap();
//! assert_eq!(assigned.returns, [1.0, 1.0, 0.0]);
//! assert!(assigned.advantages.per_row[0] > 0.0 && assigned.advantages.per_row[2] < 0.0);
//! ```
//!
//! The results agree with verl (`core_algos`); [`golden`] checks this.

pub mod advantage;
pub mod aggregate;
pub mod assign;
pub mod config;
pub mod correction;
pub mod credit;
pub mod error;
pub mod golden;
pub mod kl;
pub mod loss;
pub mod mismatch;
pub mod needs;
pub mod objective;
mod ratio;
mod registry;
mod rows;
pub mod shaping;
mod temporal;

pub use rows::{Part, Rows, ShapeError};
