//! The generation engine: many prompts in, sampled tokens and their log-probabilities out.
//!
//! Nothing is computed twice that can be kept: one prompt's samples share its keys and values
//! in memory and in the attention products, prompts that begin alike are computed once as far
//! as they do, and a later turn of a conversation computes only what is new. Nothing is
//! padded in the linear layers. What a request generates depends on its own prompt, settings
//! and seed, and on its company only through the rounding of larger or smaller products; the
//! same call after the same calls gives the same bytes.

mod attention;
mod cache;
mod fused;
mod prefill;
mod sampler;
pub(crate) mod single;
mod store;
mod wave;

use std::collections::HashSet;
use std::sync::Arc;

use leyden_core::{FinishReason, Sampling, SeedTree};
use tch::Device;

use crate::{LlamaConfig, LmError, Rotary, Weights};
use cache::{Cache, Entry};
use store::Store;
use wave::Model;

/// Ends a response by looking at its tokens, for stop texts.
pub trait StopCheck: Send {
    /// Whether the response ends with the last of `ids`, its tokens so far. Asked after every
    /// token.
    fn stops(&self, ids: &[u32]) -> bool;
}

impl<F: Fn(&[u32]) -> bool + Send> StopCheck for F {
    fn stops(&self, ids: &[u32]) -> bool {
        self(ids)
    }
}

/// One response to generate.
pub struct Request {
    /// Identity of the conversation: what was computed for it is reused as far as `prompt`
    /// repeats it. Within one call only the first request of a key is kept under it.
    pub key: u64,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    /// Token number t is drawn with `seed.index(t).uniform()`.
    pub seed: SeedTree,
    /// Tokens that end the response; the one sampled is part of it.
    pub stop_ids: Arc<[u32]>,
    pub stop: Option<Box<dyn StopCheck>>,
}

/// One generated response.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub ids: Vec<u32>,
    /// Log-probability of each token under the distribution it was drawn from: after
    /// temperature, top-k and top-p, renormalised; greedy (temperature 0): at temperature 1,
    /// unfiltered.
    pub logprobs: Vec<f32>,
    pub finish: FinishReason,
}

/// Bounds in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest prompt and response together.
    pub context: usize,
    /// Room of the cache, [`Engine::bytes_per_token`] each. A call that needs more is run in
    /// waves, in order.
    pub cache_tokens: usize,
    /// Most prompt tokens in one forward pass.
    pub prefill_tokens: usize,
}

/// Counts since the engine was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Prompt tokens that were computed.
    pub prefilled_tokens: u64,
    /// Prompt tokens that were there already: from an earlier turn, or shared with another
    /// request.
    pub reused_tokens: u64,
    pub generated_tokens: u64,
}

/// The generation engine.
pub struct Engine {
    model: Model,
    limits: Limits,
    cache: Cache,
    stats: EngineStats,
}

impl Engine {
    /// An engine that runs `weights`, on `device`, in their own type.
    pub fn new(config: LlamaConfig, mut weights: Weights, device: Device, limits: Limits) -> Self {
        weights.pack();
        let options = (weights.embedding.kind(), device);
        let store = || Store::new(&config, options.0, device);
        Self {
            cache: Cache::new(store(), store()),
            model: Model { rotary: Rotary::new(&config, device), config, weights, options },
            limits,
            stats: EngineStats::default(),
        }
    }

    /// Memory of one cached token: keys and values of all layers.
    pub fn bytes_per_token(config: &LlamaConfig, kind: tch::Kind) -> usize {
        2 * config.layers * config.kv_heads * config.head_dim * kind.elt_size_in_bytes()
    }

    /// Replaces the weights, of the same shape and type, and forgets everything cached.
    pub fn set_weights(&mut self, mut weights: Weights) {
        weights.pack();
        self.model.weights = weights;
        self.forget_all();
    }

    /// Forgets a conversation.
    pub fn forget(&mut self, key: u64) {
        self.cache.forget(key);
    }

    /// Forgets all conversations and frees their memory.
    pub fn forget_all(&mut self) {
        self.cache.clear();
    }

    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    /// Tokens for which the cache holds memory now; at most [`Limits::cache_tokens`].
    pub fn cached_tokens(&self) -> usize {
        self.cache.row_store.tokens() + self.cache.trunk_store.tokens()
    }

    /// Generates a response to every request, in the order of the requests.
    ///
    /// # Errors
    /// The outer error is for the call: libtorch's own (memory, device), or logits that are
    /// not finite; everything cached is forgotten then. The inner ones are for one request,
    /// and the others go on: an empty prompt or one longer than the context, a token outside
    /// the vocabulary, settings that make no sense, more tokens than the cache holds.
    pub fn generate(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Completion, LmError>>, LmError> {
        let _guard = tch::no_grad_guard();
        let mut results: Vec<Option<Result<Completion, LmError>>> =
            requests.iter().map(|request| self.settled(request).transpose()).collect();
        let mut keys = HashSet::new();
        let first_of_key: Vec<bool> = requests
            .iter()
            .zip(&results)
            .map(|(request, result)| result.is_none() && keys.insert(request.key))
            .collect();
        loop {
            let waiting: Vec<usize> =
                (0..requests.len()).filter(|&i| results[i].is_none()).collect();
            let Some(&first) = waiting.first() else { break };
            let entries: Vec<Entry> =
                waiting.iter().map(|&i| self.entry(&requests[i], first_of_key[i])).collect();
            let count = self.cache.fitting(&entries, self.limits.cache_tokens);
            if count == 0 {
                results[first] = Some(Err(LmError::Invalid(format!(
                    "a prompt of {} tokens with up to {} new ones does not fit into a cache of {}",
                    requests[first].prompt.len(),
                    self.room(&requests[first]),
                    self.limits.cache_tokens
                ))));
                continue;
            }
            let wave: Vec<(&Request, usize)> =
                waiting[..count].iter().map(|&i| (&requests[i], self.room(&requests[i]))).collect();
            let completions = match self.wave(&entries[..count], &wave) {
                Ok(completions) => completions,
                Err(error) => {
                    // Keys and values may be half written.
                    self.forget_all();
                    return Err(error);
                }
            };
            for (&i, completion) in waiting.iter().zip(completions) {
                results[i] = Some(Ok(completion));
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn wave(
        &mut self,
        entries: &[Entry],
        requests: &[(&Request, usize)],
    ) -> Result<Vec<Completion>, LmError> {
        let admission = self.cache.admit(entries, self.limits.cache_tokens)?;
        let (completions, prefilled) = wave::run(
            &self.model,
            &mut self.cache,
            &admission,
            requests,
            self.limits.prefill_tokens,
        )?;
        let prompts: usize = requests.iter().map(|(request, _)| request.prompt.len()).sum();
        let generated: usize = completions.iter().map(|c| c.ids.len()).sum();
        self.stats.prefilled_tokens += prefilled as u64;
        self.stats.reused_tokens += prompts.saturating_sub(prefilled) as u64;
        self.stats.generated_tokens += generated as u64;
        Ok(completions)
    }

    /// Most tokens that can be generated for `request`.
    fn room(&self, request: &Request) -> usize {
        request.sampling.max_tokens.min(self.limits.context.saturating_sub(request.prompt.len()))
    }

    /// The result of a request for which nothing need be generated.
    fn settled(&self, request: &Request) -> Result<Option<Completion>, LmError> {
        let Request { prompt, sampling, .. } = request;
        if prompt.is_empty() {
            return Err(LmError::Invalid("the prompt is empty".to_owned()));
        }
        let limit = self.limits.context;
        if prompt.len() > limit {
            return Err(LmError::PromptTooLong { tokens: prompt.len(), limit });
        }
        let vocabulary = self.model.config.vocab_size;
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(LmError::TokenOutside { id, vocabulary });
        }
        sampler::check(sampling)?;
        Ok((self.room(request) == 0).then(|| Completion {
            ids: Vec::new(),
            logprobs: Vec::new(),
            finish: FinishReason::Length,
        }))
    }

    fn entry<'a>(&self, request: &'a Request, named: bool) -> Entry<'a> {
        let prompt = request.prompt.as_slice();
        let reuse = if named { self.cache.reuse(request.key, prompt) } else { None };
        let trunk = reuse.map_or(prompt.len() - 1, |reuse| self.cache.trunk_length(reuse.row));
        // The last token generated is not computed, but a row that has finished takes one
        // column more while it waits to leave the batch.
        let need = prompt.len() - trunk + self.room(request);
        Entry { key: named.then_some(request.key), prompt, reuse, need }
    }
}
