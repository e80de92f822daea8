//! Statistics of runs and sweeps, for reports and evaluations.
//!
//! Deep reinforcement learning is reported from few runs, and means of few runs mislead. In
//! addition to means and deviations, [`scores`] therefore has the tools of Agarwal et al., *Deep
//! Reinforcement Learning at the Edge of the Statistical Precipice*, arXiv 2108.13264:
//! interquartile means, performance profiles, probabilities of improvement, with bootstraps
//! stratified by task; the values agree with rliable. Two groups of runs are compared by
//! [`difference`], with [`holm()`] for several comparisons and [`seeds_needed`] to plan them.
//! Comparisons item by item are in [`paired`], learning curves in [`curve`], intervals of a mean or
//! a proportion in [`interval`] and [`student`]. [`credit`] compares credit rules with the true advantages
//! of calls.
//!
//! Intervals are at 95 %. Bootstraps draw from the seed tree, so the same run gives the same
//! interval. The crate is independent of `leyden-rl`, whose rules work within a step, so that a
//! change to a report does not rebuild the trainer.

pub mod credit;
pub mod curve;
pub mod depth;
pub mod difference;
pub mod holm;
pub mod interval;
mod numbers;
pub mod paired;
pub mod power;
pub mod scores;
pub mod student;

pub use curve::{area_under_curve, carried_area, steps_to_threshold};
pub use depth::{Errors, errors, majority, pass_at};
pub use difference::{DifferenceError, FEWEST_RUNS, MeanDifference, paired_t, welch_t};
pub use holm::holm;
pub use interval::{Interval, Z_95, bootstrap_interval, normal_interval, wilson_interval};
pub use numbers::{mean, quantile, sample_std};
pub use paired::{Difference, McNemar, PairedError, mcnemar, paired_bootstrap};
pub use power::seeds_needed;
pub use scores::{ScoreError, Scores, probability_of_improvement};
pub use student::{student_interval, student_quantile};
