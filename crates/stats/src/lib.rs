//! Statistics of runs and sweeps: what reports and evaluations rest on.
//!
//! Deep reinforcement learning is reported from few runs, and means of few runs mislead. So
//! beside means and deviations there are the tools of Agarwal et al., *Deep Reinforcement
//! Learning at the Edge of the Statistical Precipice*, arXiv 2108.13264 ([`scores`]):
//! interquartile means, performance profiles, probabilities of improvement, with bootstraps
//! stratified by task; their numbers agree with those of rliable. Comparisons item by item are
//! in [`paired`], learning curves in [`curve`], intervals of a mean or a share in [`interval`].
//!
//! Intervals are at 95 %. Bootstraps draw from the seed tree, so the same run gives the same
//! interval. Nothing here knows of training: the crate is apart from `leyden-rl`, whose rules
//! work within a step, so that a change of a report never rebuilds the trainer.

pub mod curve;
pub mod interval;
mod numbers;
pub mod paired;
pub mod scores;

pub use curve::{area_under_curve, steps_to_threshold};
pub use interval::{Interval, Z_95, bootstrap_interval, normal_interval, wilson_interval};
pub use numbers::{mean, quantile, sample_std};
pub use paired::{Difference, McNemar, PairedError, mcnemar, paired_bootstrap};
pub use scores::{ScoreError, Scores, difference_interval, probability_of_improvement};
