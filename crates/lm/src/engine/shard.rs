//! One engine: a model, its cache, and requests in waves that fit into the cache.

use std::collections::HashSet;

use leyden_core::FinishReason;
use tch::Device;

use super::cache::{Cache, Entry};
use super::store::Store;
use super::wave::{self, Model};
use super::{Completion, EngineStats, Limits, Request, StopCheck, sampler};
use crate::{LlamaConfig, LmError, Rotary, Weights};

/// What one thread generates with.
pub(super) struct Shard {
    model: Model,
    limits: Limits,
    cache: Cache,
    stats: EngineStats,
}

impl Shard {
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

    /// Another one with the same weights, with `limits` for it.
    pub fn beside(&self, limits: Limits) -> Self {
        let Model { config, weights, options, .. } = &self.model;
        Self::new(config.clone(), weights.shallow_clone(), options.1, limits)
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn device(&self) -> Device {
        self.model.options.1
    }

    pub fn set_weights(&mut self, mut weights: Weights) {
        weights.pack();
        self.model.weights = weights;
        self.forget_all();
    }

    pub fn forget(&mut self, key: u64) {
        self.cache.forget(key);
    }

    pub fn forget_all(&mut self) {
        self.cache.clear();
    }

    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    pub fn cached_tokens(&self) -> usize {
        self.cache.row_store.tokens() + self.cache.trunk_store.tokens()
    }

    /// As [`super::Engine::generate`].
    pub fn generate(
        &mut self,
        mut requests: Vec<Request>,
    ) -> Result<Vec<Result<Completion, LmError>>, LmError> {
        let mut stops: Vec<_> = requests.iter_mut().map(|r| r.stop.take()).collect();
        let requests: Vec<&Request> = requests.iter().collect();
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
                waiting.iter().map(|&i| self.entry(requests[i], first_of_key[i])).collect();
            let count = self.cache.fitting(&entries, self.limits.cache_tokens);
            if count == 0 {
                results[first] = Some(Err(LmError::Invalid(format!(
                    "a prompt of {} tokens with up to {} new ones does not fit into a cache of {}",
                    requests[first].prompt.len(),
                    self.room(requests[first]),
                    self.limits.cache_tokens
                ))));
                continue;
            }
            let wave: Vec<(&Request, usize)> =
                waiting[..count].iter().map(|&i| (requests[i], self.room(requests[i]))).collect();
            let stops = waiting[..count].iter().map(|&i| stops[i].take()).collect();
            let completions = match self.wave(&entries[..count], &wave, stops) {
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
        stops: Vec<Option<Box<dyn StopCheck>>>,
    ) -> Result<Vec<Completion>, LmError> {
        let admission = self.cache.admit(entries, self.limits.cache_tokens)?;
        let (completions, prefilled) = wave::run(
            &self.model,
            &mut self.cache,
            &admission,
            requests,
            stops,
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
            top: Vec::new(),
            finish: FinishReason::Length,
            cached_tokens: 0,
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
