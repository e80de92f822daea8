//! Calc-X: arithmetic word problems with a calculator.
//!
//! The [`calculator`] that its agents call, the [`scorer`] that decides whether a result is
//! correct, the [`loader`] of its rows, and its [`chain`]s as conversations for supervised
//! training. [`golden`] compares calculator and scorer with the original programs.

pub mod calculator;
pub mod chain;
pub mod equation;
pub mod golden;
pub mod loader;
pub mod scorer;
pub mod select;

pub use calculator::{calculate, calculate_single};
pub use chain::{Demonstration, Turn};
pub use loader::{Loaded, Rejected};
pub use scorer::CalcxScorer;
