//! Limits of an engine, and its counters.

/// Bounds in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum length of prompt and response together.
    pub context: usize,
    /// Size of the cache, [`bytes_per_token`](crate::generate::Engine::bytes_per_token) each.
    /// Requests wait while it is full, and idle conversations stay cached as far as there is space.
    pub cache_tokens: usize,
    /// Maximum prompt tokens in one forward pass, which bounds how long a step may delay requests
    /// that are generating.
    pub prefill_tokens: usize,
}

/// Counters since the engine was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Prompt tokens that were computed, including those computed again for requests that had lost
    /// their cache space.
    pub prefilled_tokens: u64,
    /// Prompt tokens that were already cached: from an earlier turn, or shared with another
    /// request.
    pub reused_tokens: u64,
    pub generated_tokens: u64,
}

impl std::iter::Sum for EngineStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            prefilled_tokens: sum.prefilled_tokens + one.prefilled_tokens,
            reused_tokens: sum.reused_tokens + one.reused_tokens,
            generated_tokens: sum.generated_tokens + one.generated_tokens,
        })
    }
}
