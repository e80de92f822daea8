//! How an engine serves.

use std::time::Duration;

use leyden_serve::backend::ModelCard;

/// Limits and names of an [`EngineBackend`](crate::EngineBackend).
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// As `/v1/models` lists it.
    pub card: ModelCard,
    /// Threads of libtorch, on the engine's own thread.
    pub threads: usize,
    /// Most requests that are answered or wait at a time; the next one is told to come back.
    pub max_requests: usize,
    /// From a request's arrival to the end of its answer.
    pub deadline: Duration,
    /// Longest wait for new weights before a request is told to come back.
    pub update_wait: Duration,
    /// Tokens of past calls that are kept for conversations; about 16 bytes each.
    pub history_tokens: usize,
    /// Root of the draws of requests that bring no seed.
    pub seed: u64,
}

impl Options {
    /// Sensible limits for a model that is known as `id`, with `context` tokens.
    pub fn new(id: impl Into<String>, context: usize) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let created = now.map_or(0, |since| since.as_secs());
        Self {
            card: ModelCard { id: id.into(), created, context },
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_requests: 4096,
            deadline: Duration::from_secs(600),
            update_wait: Duration::from_secs(120),
            history_tokens: 8 << 20,
            seed: 0,
        }
    }
}
