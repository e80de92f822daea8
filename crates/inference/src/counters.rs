//! Counters of a server, for `/metrics`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use leyden_serve::backend::Figure;

/// Counters, written by several threads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Accepted, but not yet answered.
    pub open: AtomicUsize,
    /// Of those, being generated.
    pub running: AtomicUsize,
    pub finished: AtomicU64,
    pub failed: AtomicU64,
    pub cancelled: AtomicU64,
    pub refused: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    pub extended_prompts: AtomicU64,
    pub rewritten_prompts: AtomicU64,
    pub policy_version: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> Stats {
        let running = self.running.load(Ordering::Relaxed);
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            waiting: self.open.load(Ordering::Relaxed).saturating_sub(running),
            running,
            finished: number(&self.finished),
            failed: number(&self.failed),
            cancelled: number(&self.cancelled),
            refused: number(&self.refused),
            prompt_tokens: number(&self.prompt_tokens),
            cached_tokens: number(&self.cached_tokens),
            generated_tokens: number(&self.generated_tokens),
            extended_prompts: number(&self.extended_prompts),
            rewritten_prompts: number(&self.rewritten_prompts),
            policy_version: number(&self.policy_version),
        }
    }
}

/// Adds to a counter; no other memory access is ordered by it.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// The counters at one moment; totals count from the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests in the queue, including those being tokenised.
    pub waiting: usize,
    /// Requests being generated.
    pub running: usize,
    /// Requests answered.
    pub finished: u64,
    /// Requests that ended with a failure.
    pub failed: u64,
    /// Requests whose client disconnected.
    pub cancelled: u64,
    /// Requests rejected because the queue was full.
    pub refused: u64,
    /// Prompt tokens of answered requests, and how many of them were in the cache.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub generated_tokens: u64,
    /// Prompts that continued an earlier call of their conversation token for token.
    pub extended_prompts: u64,
    /// Prompts whose template rewrote earlier messages of their conversation.
    pub rewritten_prompts: u64,
    /// Number of weight updates applied to the policy.
    pub policy_version: u64,
}

impl Stats {
    /// The counters as `/metrics` shows them.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let figure = |name, help, value| Figure { name, help, value };
        vec![
            figure("leyden_engine_waiting", "Requests in the queue.", self.waiting as u64),
            figure("leyden_engine_running", "Requests being generated.", self.running as u64),
            figure("leyden_engine_finished_total", "Requests answered.", self.finished),
            figure("leyden_engine_failed_total", "Requests that failed.", self.failed),
            figure(
                "leyden_engine_cancelled_total",
                "Requests whose client disconnected.",
                self.cancelled,
            ),
            figure("leyden_engine_refused_total", "Requests rejected: queue full.", self.refused),
            figure(
                "leyden_engine_prompt_tokens_total",
                "Prompt tokens of answered requests.",
                self.prompt_tokens,
            ),
            figure(
                "leyden_engine_cached_tokens_total",
                "Of these, tokens found in the cache.",
                self.cached_tokens,
            ),
            figure(
                "leyden_engine_generated_tokens_total",
                "Tokens of answers.",
                self.generated_tokens,
            ),
            figure(
                "leyden_engine_extended_prompts_total",
                "Prompts that continued an earlier call token for token.",
                self.extended_prompts,
            ),
            figure(
                "leyden_engine_rewritten_prompts_total",
                "Prompts whose template rewrote earlier messages of their conversation.",
                self.rewritten_prompts,
            ),
            figure(
                "leyden_engine_policy_version",
                "Weight updates applied to the policy.",
                self.policy_version,
            ),
        ]
    }
}
