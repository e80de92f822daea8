//! What is asked of the engine, and what comes back.

use std::sync::Arc;

use leyden_core::{FinishReason, Sampling, SeedTree};

/// Ends a response by looking at its tokens, for stop texts.
pub trait StopCheck: Send {
    /// Whether the response ends with `id`. Told every token of the response once, in order, but
    /// for a stop id, which ends it anyway.
    fn stops(&mut self, id: u32) -> bool;
}

impl<F: FnMut(u32) -> bool + Send> StopCheck for F {
    fn stops(&mut self, id: u32) -> bool {
        self(id)
    }
}

/// Says which tokens may follow, for responses that must have a form.
///
/// A failure ends its own request with this sentence; the others go on.
pub trait Constraint: Send {
    /// A bit for each token of the vocabulary, 32 to a word, the lowest bit first: set where
    /// the token may come next. Tokens beyond the last word may not.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    fn allowed(&mut self) -> Result<&[u32], String>;

    /// Takes in the token that was chosen; not told of a stop id, which ends the response.
    ///
    /// # Errors
    /// A sentence that says why the token cannot follow.
    fn accept(&mut self, id: u32) -> Result<(), String>;

    /// Whether the response is complete, so that nothing may follow.
    fn ended(&self) -> bool;
}

/// One response to generate.
pub struct Request {
    /// Identity of the conversation: what was computed for it is reused as far as `prompt`
    /// repeats it. Of several requests in flight with one key only the first is kept under it.
    pub key: u64,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    /// Token number t is drawn with `seed.index(t).uniform()`.
    pub seed: SeedTree,
    /// Tokens that end the response; the one sampled is part of it.
    pub stop_ids: Arc<[u32]>,
    pub stop: Option<Box<dyn StopCheck>>,
    /// How many of the likeliest tokens to name at each place of the response.
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
    /// For each token the likeliest ones under the same distribution, likeliest first: at most
    /// [`Request::top_logprobs`], fewer where fewer are possible. Empty where none were asked.
    pub top: Vec<Vec<TokenLogprob>>,
    pub finish: FinishReason,
    /// Tokens of the prompt that were there already: from an earlier turn, or shared with
    /// another request.
    pub cached_tokens: usize,
}

/// Names a submitted request for as long as the engine knows it.
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
