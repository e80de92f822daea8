//! Agents outside of this process: any program that speaks OpenAI's protocol.
//!
//! To the trainer an [`ExternalAgent`] is an [`Agent`](leyden_core::Agent) like any other. It
//! registers its rollout with the run's Lightning Server ([`Host`]), has a program work on the
//! task (a [`process`] of this machine, or a worker that claims the rollout over HTTP), and
//! passes what the program asks of its model to the trainer's own [`episode`]. So capture,
//! credit and replay are those of native agents, and the program needs no line of change.

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
