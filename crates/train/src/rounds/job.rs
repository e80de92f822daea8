//! Input and output of a round of rollouts.

use leyden_core::{Call, Draft, Rollout, SeedTree, Task};

/// One rollout to run.
pub struct Job<'a> {
    pub id: usize,
    pub group: usize,
    pub task: &'a Task,
    pub seed: SeedTree,
    /// Recorded calls to replay before new ones are generated.
    pub played: &'a [Call],
}

/// The results, in the order of the jobs.
#[derive(Debug, Clone)]
pub struct RoundOutput {
    pub rollouts: Vec<Rollout>,
    pub prompts: PromptCounts,
    /// Intermediate answers of each rollout, from agents that report them.
    pub drafts: Vec<Vec<Draft>>,
    /// Time spent by each rollout.
    pub spent: Vec<Spent>,
}

/// Time spent by a rollout, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// The agent and its tools were running.
    pub agent: f64,
    /// Calls were queued or running in the engine.
    pub model: f64,
    /// The rollout waited for a process or a worker.
    pub queue: f64,
}

impl Spent {
    /// The mean over rollouts.
    pub fn mean(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        Self { agent: mean(|s| s.agent), model: mean(|s| s.model), queue: mean(|s| s.queue) }
    }
}

/// Counts of prompts by their relation to earlier calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptCounts {
    /// First prompts of a conversation.
    pub fresh: usize,
    /// Prompts that extend an earlier call token for token.
    pub extended: usize,
    /// Prompts for which the template rewrote earlier messages.
    pub rewritten: usize,
}

impl PromptCounts {
    /// Adds the counts of other rollouts.
    pub fn add(&mut self, other: Self) {
        self.fresh += other.fresh;
        self.extended += other.extended;
        self.rewritten += other.rewritten;
    }
}
