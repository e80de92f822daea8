//! Options of an engine that serves requests.

use std::time::Duration;

use leyden_serve::backend::ModelCard;

/// Limits and names of an [`EngineBackend`](crate::EngineBackend).
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The entry in `/v1/models`.
    pub card: ModelCard,
    /// Threads of libtorch, on the engine's own thread.
    pub threads: usize,
    /// Maximum number of open requests; further ones are rejected as busy.
    pub max_requests: usize,
    /// From a request's arrival to the end of its answer.
    pub deadline: Duration,
    /// Longest wait for new weights before a request is rejected as busy.
    pub update_wait: Duration,
    /// Tokens of past calls kept for conversations; about 16 bytes each.
    pub history_tokens: usize,
    /// Root seed for requests without a seed.
    pub seed: u64,
}

impl Options {
    /// Default limits for a model served as `id`, with a context of `context` tokens.
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
