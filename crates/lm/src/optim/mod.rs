//! Optimisers on the flat parameter buffer, clipping, learning-rate schedules.

pub(crate) mod muon;
pub(crate) mod optimizer;
pub(crate) mod schedule;

pub use muon::MuonConfig;
pub use optimizer::{Optimizer, OptimizerConfig, clip_grad_norm, clip_grad_norms};
pub use schedule::{Decay, Schedule};
