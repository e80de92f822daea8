//! Requests to the engine, and their results.

use std::sync::Arc;

use leyden_core::{FinishReason, Sampling, SeedTree};

/// Ends a response depending on its tokens, for stop texts.
pub trait StopCheck: Send {
    /// Whether the response ends with `id`. Called once per response token, in order, except for a
    /// stop id, which ends the response anyway.
    fn stops(&mut self, id: u32) -> bool;
}

impl<F: FnMut(u32) -> bool + Send> StopCheck for F {
    fn stops(&mut self, id: u32) -> bool {
        self(id)
    }
}

/// Restricts the next token, for constrained responses.
///
/// An error ends its own request with this message; other requests continue.
pub trait Constraint: Send {
    /// A bit for each token of the vocabulary, 32 per word, lowest bit first: set if the token may
    /// come next. Tokens beyond the last word are not allowed.
    ///
    /// # Errors
    /// A sentence with the reason why there is no response.
    fn allowed(&mut self) -> Result<&[u32], String>;

    /// Advances by the sampled token; not called for a stop id, which ends the response.
    ///
    /// # Errors
    /// A sentence with the reason why the token is not allowed.
    fn accept(&mut self, id: u32) -> Result<(), String>;

    /// Whether the response is complete, so that nothing may follow.
    fn ended(&self) -> bool;
}

/// One response to generate.
pub struct Request {
    /// Identity of the conversation: its cached tokens are reused as far as `prompt` repeats them.
    /// Of several requests in flight with the same key, only the first is kept under it.
    pub key: u64,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    /// Token number t is drawn with `seed.index(t).uniform()`.
    pub seed: SeedTree,
    /// Tokens that end the response; the sampled one is part of it.
    pub stop_ids: Arc<[u32]>,
    pub stop: Option<Box<dyn StopCheck>>,
    /// Number of most likely tokens to return for each position of the response.
    pub top_logprobs: usize,
    /// Tokens that it does not allow have probability 0, before temperature, top-k and top-p.
    pub constraint: Option<Box<dyn Constraint>>,
}

impl Request {
    /// A request without stop ids, stop check or constraint.
    pub fn new(key: u64, prompt: Vec<u32>, sampling: Sampling, seed: SeedTree) -> Self {
        let stop_ids = Arc::from([]);
        Self {
            key,
            prompt,
            sampling,
            seed,
            stop_ids,
            stop: None,
            top_logprobs: 0,
            constraint: None,
        }
    }
}

/// A token and its log-probability.
pub type TokenLogprob = (u32, f32);

/// One generated response.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub ids: Vec<u32>,
    /// Log-probability of each token under the distribution it was drawn from: after the
    /// constraint, temperature, top-k and top-p, renormalised; greedy (temperature 0): at
    /// temperature 1, after the constraint only.
    pub logprobs: Vec<f32>,
    /// For each token the most likely ones under the same distribution, in descending order: at
    /// most [`Request::top_logprobs`], fewer if fewer are possible. Empty if none were requested.
    pub top: Vec<Vec<TokenLogprob>>,
    pub finish: FinishReason,
    /// Prompt tokens that were already cached: from an earlier turn, or shared with another
    /// request.
    pub cached_tokens: usize,
}

/// Identifies a submitted request until its result is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// One token of a submitted request.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    pub ticket: Ticket,
    pub id: u32,
    /// As in [`Completion::logprobs`].
    pub logprob: f32,
    /// As in [`Completion::top`].
    pub top: Vec<TokenLogprob>,
}
