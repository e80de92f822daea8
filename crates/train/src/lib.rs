//! The LightningRL loop.
//!
//! Sample tasks → run rollouts ([`rounds`]) → credit and advantage ([`batch`]) → pack, update
//! ([`trainer`]) → evaluate → checkpoint, all written down in a run folder ([`folder`]). The
//! trainer knows `dyn Agent`, `dyn Scorer` and a source of tasks, never a particular agent:
//! whoever starts a run hands it an [`Environment`].

mod appraisal;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod critic;
pub mod data;
mod environment;
mod error;
pub mod evaluation;
mod figures;
pub mod folder;
pub mod plan;
pub mod progress;
pub mod provenance;
pub mod reference;
mod reinforcement;
mod replicas;
mod reward;
pub mod rounds;
pub mod run;
pub mod store;
pub mod successes;
pub mod supervised;
pub mod trainer;
mod update;

pub use config::Experiment;
pub use environment::{Environment, Observer};
pub use error::TrainError;
pub use run::{Finish, run};
