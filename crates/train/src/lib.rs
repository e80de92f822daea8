//! The LightningRL loop.
//!
//! `step.rs` is one step from top to bottom: sample → batch → reference and critic → credit →
//! update → record. [`run()`] repeats it, with evaluations and checkpoints between, and writes
//! everything down in a run folder ([`folder`]). The trainer knows `dyn Agent`, `dyn Scorer` and
//! a source of tasks, never a particular agent: whoever starts a run hands it an [`Environment`].
//!
//! The same in one file, for one agent and one algorithm: `examples/nano.rs`.

pub mod batch;
pub mod checkpoint;
pub mod config;
mod credit_inputs;
pub mod critic;
pub mod data;
mod environment;
mod error;
pub mod evaluation;
mod figures;
pub mod folder;
mod laps;
mod numbers;
pub mod plan;
pub mod progress;
pub mod provenance;
pub mod reference;
pub mod rejection_sampling;
mod replicas;
mod reward;
pub mod rounds;
pub mod run;
mod sample;
pub mod sampler;
mod step;
pub mod store;
pub mod supervised;
pub mod trainer;
pub mod update;

pub use config::Experiment;
pub use environment::{Environment, Observer};
pub use error::TrainError;
pub use run::{Finish, run};
