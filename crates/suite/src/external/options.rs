//! Options of external agents.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where external agents run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Workers {
    /// One local process per rollout.
    #[default]
    Local,
    /// Local processes that claim rollouts one after another.
    Pool,
    /// Workers that are started elsewhere.
    Remote,
}

/// Source of a rollout's reward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RewardFrom {
    /// The benchmark's scorer, applied to the agent's answer.
    #[default]
    Scorer,
    /// The agent, as an event.
    Agent,
}

/// Options and limits of external agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub workers: Workers,
    /// Program and arguments; empty if workers are remote.
    pub command: Vec<String>,
    /// Maximum number of concurrent processes.
    pub processes: usize,
    pub reward: RewardFrom,
    /// The role of calls whose system prompt contains none of the texts of `roles`.
    pub default_role: String,
    /// Text contained in the system prompt of each role.
    pub roles: BTreeMap<String, String>,
    /// Names of environment variables that processes inherit, besides PATH, HOME and LANG.
    pub environment: Vec<String>,
    /// Limit of a process's address space in bytes; 0 is unlimited.
    pub memory: u64,
    /// Limit of a process's CPU time in seconds; 0 is unlimited.
    pub cpu_seconds: u64,
    /// Time without a heartbeat after which a remote worker's rollouts are requeued.
    pub lease: Duration,
    /// Reports truncated answers of the Responses API as completed.
    pub truncated_as_completed: bool,
    /// Address of the run's Lightning Server; port 0 selects a free one.
    pub host: String,
    pub port: u16,
    /// Key that agents must send; random if `None`.
    pub key: Option<String>,
    /// The server's store: rollouts, calls and events.
    pub store: PathBuf,
    /// The model's name in responses.
    pub model: String,
}
