//! Calc-X: arithmetic word problems with a calculator.
//!
//! The dataset's four parts as code: the [`calculator`] that its agents call, the [`scorer`]
//! that decides whether a result is right, the [`loader`] of its rows, and its [`chain`]s as
//! conversations to learn from. Everything that can be compared with the original programs
//! is, by [`golden`].

pub mod calculator;
pub mod chain;
pub mod equation;
pub mod golden;
pub mod loader;
pub mod scorer;
pub mod select;

pub use calculator::calculate;
pub use chain::{Demonstration, Turn};
pub use loader::{Loaded, Rejected};
pub use scorer::CalcxScorer;
