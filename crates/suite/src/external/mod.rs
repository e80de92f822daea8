//! Agents outside of this process: any program that uses OpenAI's protocol.
//!
//! An [`ExternalAgent`] implements [`Agent`](leyden_core::Agent). It registers its rollout with
//! the run's Lightning Server ([`Host`]), lets a program work on the task (a [`process`] on this
//! machine, or a worker that claims the rollout over HTTP), and forwards the program's model
//! requests to the trainer's [`episode`]. So capture, credit and replay work as for native
//! agents, and the program needs no changes.

mod agent;
mod benchmark;
mod episode;
mod host;
mod options;
mod pool;
mod process;
mod task;

pub use agent::ExternalAgent;
pub use benchmark::External;
pub use host::{Host, HostError};
pub use options::{Options, RewardFrom, Workers};
pub use task::{Extras, NoExtras, Tool};
