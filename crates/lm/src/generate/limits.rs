//! How much an engine may hold, and what it has done.

/// Bounds in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest prompt and response together.
    pub context: usize,
    /// Room of the cache, [`bytes_per_token`](crate::generate::Engine::bytes_per_token) each.
    /// Requests that find none wait, and conversations that nobody goes on with stay as far as
    /// there is room.
    pub cache_tokens: usize,
    /// Most prompt tokens in one forward pass: how long a step may keep those waiting that
    /// already generate.
    pub prefill_tokens: usize,
}

/// Counts since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Prompt tokens that were computed, and tokens that were computed again for requests that
    /// had lost their room.
    pub prefilled_tokens: u64,
    /// Prompt tokens that were there already: from an earlier turn, or shared with another
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
