//! The LightningRL loop.
//!
//! `step.rs` is one step: sample → batch → reference and critic → credit → update → record.
//! [`run()`] repeats it with evaluations and checkpoints, and writes everything to a run folder
//! ([`folder`]). The trainer depends on `dyn Agent`, `dyn Scorer` and a source of tasks, never on a
//! particular agent: the caller passes an [`Environment`].
//!
//! `examples/nano.rs` is the same in one file, for one agent and one algorithm.

pub mod batch;
pub mod checkpoint;
pub mod config;
mod credit_inputs;
pub mod credit_truth;
pub mod critic;
mod curriculum;
pub mod data;
mod environment;
mod error;
pub mod evaluation;
mod figures;
pub mod folder;
mod laps;
mod numbers;
mod parts;
pub mod plan;
pub mod progress;
pub mod provenance;
pub mod reference;
pub mod rejection_sampling;
pub mod replay;
mod replicas;
mod reward;
pub mod rounds;
pub mod run;
mod sample;
pub mod sampler;
pub mod staleness;
mod step;
pub mod store;
pub mod supervised;
pub mod task_order;
pub mod trainer;
pub mod trunk;
pub mod update;

pub use config::Experiment;
pub use environment::{Environment, Observer};
pub use error::TrainError;
pub use run::{Finish, run};
