//! How external agents are run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where external agents run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Workers {
    /// A process of this machine for every rollout.
    #[default]
    Local,
    /// Processes of this machine that each claim one rollout after the other.
    Pool,
    /// Workers that somebody else starts.
    Remote,
}

/// Who says what a rollout earned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RewardFrom {
    /// The benchmark's scorer, of the agent's answer.
    #[default]
    Scorer,
    /// The agent, as an event.
    Agent,
}

/// How external agents are run, and what limits hold for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub workers: Workers,
    /// Program and arguments; empty where workers are remote.
    pub command: Vec<String>,
    /// Most processes at once.
    pub processes: usize,
    pub reward: RewardFrom,
    /// The role of calls whose system prompt contains none of the texts of `roles`.
    pub default_role: String,
    /// Roles with a text that their system prompt contains.
    pub roles: BTreeMap<String, String>,
    /// Names of environment variables that processes inherit, besides PATH, HOME and LANG.
    pub environment: Vec<String>,
    /// Most bytes of address space of a process; 0 is unlimited.
    pub memory: u64,
    /// Most seconds of processor time of a process; 0 is unlimited.
    pub cpu_seconds: u64,
    /// After so long without a heartbeat a remote worker loses its rollouts.
    pub lease: Duration,
    /// Reports truncated answers of the Responses API as completed.
    pub truncated_as_completed: bool,
    /// Address of the run's Lightning Server; port 0 is any free one.
    pub host: String,
    pub port: u16,
    /// Key that agents must bring; drawn at random if `None`.
    pub key: Option<String>,
    /// The server's store: rollouts, calls and events.
    pub store: PathBuf,
    /// What the model is called in answers that name one.
    pub model: String,
}
