//! What is asked of a round of rollouts and what comes of it.

use leyden_core::{Call, Draft, Rollout, SeedTree, Task};

/// One rollout to be run.
pub struct Job<'a> {
    pub id: usize,
    pub group: usize,
    pub task: &'a Task,
    pub seed: SeedTree,
    /// Its first calls, which are answered as they were.
    pub played: &'a [Call],
}

/// What came of the jobs, in their order.
#[derive(Debug, Clone)]
pub struct RoundOutput {
    pub rollouts: Vec<Rollout>,
    pub prompts: PromptCounts,
    /// The answers that stood in the course of each rollout, of agents that say so.
    pub drafts: Vec<Vec<Draft>>,
    /// Where the time of each rollout went.
    pub spent: Vec<Spent>,
}

/// Where a rollout's time went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// The agent and its tools were at work.
    pub agent: f64,
    /// Calls were in the engine, or waited for it.
    pub model: f64,
    /// The rollout waited for a process or a worker.
    pub queue: f64,
}

impl Spent {
    /// Of a mean rollout.
    pub fn mean(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        Self { agent: mean(|s| s.agent), model: mean(|s| s.model), queue: mean(|s| s.queue) }
    }
}

/// How the prompts of a step came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptCounts {
    /// First prompts of a conversation.
    pub fresh: usize,
    /// Prompts that extend an earlier call token for token.
    pub extended: usize,
    /// Prompts whose template rewrote what had been said.
    pub rewritten: usize,
}

impl PromptCounts {
    /// Adds those of other rollouts.
    pub fn add(&mut self, other: Self) {
        self.fresh += other.fresh;
        self.extended += other.extended;
        self.rewritten += other.rewritten;
    }
}
