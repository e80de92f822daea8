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
mod grammar;
mod prefill;
mod request;
mod sampler;
mod shard;
pub(crate) mod single;
mod store;
mod straight;
mod wave;

use std::collections::HashMap;

use tch::Device;

use crate::{LlamaConfig, LmError, Weights};
pub use request::{Completion, Constraint, Request, Sampled, StopCheck, Ticket, TokenLogprob};
use shard::Shard;

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

impl std::iter::Sum for EngineStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            prefilled_tokens: sum.prefilled_tokens + one.prefilled_tokens,
            reused_tokens: sum.reused_tokens + one.reused_tokens,
            generated_tokens: sum.generated_tokens + one.generated_tokens,
        })
    }
}

/// The generation engine: one, or several that work side by side (see [`Engine::split`]).
pub struct Engine {
    shards: Vec<Shard>,
    /// Which of several shards holds a conversation.
    homes: HashMap<u64, usize>,
    tickets: u64,
    waiting: Vec<(Ticket, Request)>,
    finished: Vec<(Ticket, Result<Completion, LmError>)>,
}

impl Engine {
    /// An engine that runs `weights`, on `device`, in their own type.
    pub fn new(config: LlamaConfig, weights: Weights, device: Device, limits: Limits) -> Self {
        Self {
            shards: vec![Shard::new(config, weights, device, limits)],
            homes: HashMap::new(),
            tickets: 0,
            waiting: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Shares the work among `count` engines on threads of their own, each with its share of
    /// libtorch's threads and of the cache. For models so small that a single product is not
    /// worth dividing among cores; a conversation stays with the engine that began it.
    ///
    /// # Errors
    /// No engine at all; several on another device than CPU cores, where all would wait for
    /// the same one.
    pub fn split(mut self, count: usize) -> Result<Self, LmError> {
        let device = self.shards[0].device();
        if count == 0 || (count > 1 && device != Device::Cpu) {
            return Err(LmError::Invalid(format!(
                "{count} engines on {device:?}: there must be one, and several are for CPU cores"
            )));
        }
        let Limits { context, cache_tokens, prefill_tokens } = self.shards[0].limits();
        let limits = Limits { context, cache_tokens: cache_tokens / count, prefill_tokens };
        self.shards.truncate(1);
        self.shards[0].set_limits(limits);
        for _ in 1..count {
            self.shards.push(self.shards[0].beside(limits));
        }
        self.forget_all();
        Ok(self)
    }

    /// Memory of one cached token: keys and values of all layers.
    pub fn bytes_per_token(config: &LlamaConfig, kind: tch::Kind) -> usize {
        2 * config.layers * config.kv_heads * config.head_dim * kind.elt_size_in_bytes()
    }

    /// Replaces the weights, of the same shape and type, and forgets everything cached.
    pub fn set_weights(&mut self, weights: Weights) {
        for shard in &mut self.shards[1..] {
            shard.set_weights(weights.shallow_clone());
        }
        self.shards[0].set_weights(weights);
        self.homes.clear();
    }

    /// Forgets a conversation.
    pub fn forget(&mut self, key: u64) {
        self.homes.remove(&key);
        self.shards.iter_mut().for_each(|shard| shard.forget(key));
    }

    /// Forgets all conversations and frees their memory.
    pub fn forget_all(&mut self) {
        self.homes.clear();
        self.shards.iter_mut().for_each(Shard::forget_all);
    }

    pub fn stats(&self) -> EngineStats {
        self.shards.iter().map(Shard::stats).sum()
    }

    /// Tokens for which the cache holds memory now; at most [`Limits::cache_tokens`].
    pub fn cached_tokens(&self) -> usize {
        self.shards.iter().map(Shard::cached_tokens).sum()
    }

    /// Hands in a request, which is generated by the calls of [`Engine::step`] that follow.
    /// What is wrong with it is told by [`Engine::take_finished`].
    pub fn submit(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.push((ticket, request));
        ticket
    }

    /// Computes one forward pass and returns the tokens that it gave.
    ///
    /// # Errors
    /// libtorch's own (memory, device), or logits that are not finite: the running requests
    /// fail, and the engine can go on with others.
    pub fn step(&mut self) -> Result<Vec<Sampled>, LmError> {
        let (tickets, requests): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        let done = self.generate(requests)?;
        let mut sampled = Vec::new();
        for (&ticket, result) in tickets.iter().zip(&done) {
            let Ok(done) = result else { continue };
            let tokens = done.ids.iter().zip(&done.logprobs);
            sampled.extend(tokens.map(|(&id, &logprob)| Sampled {
                ticket,
                id,
                logprob,
                top: Vec::new(),
            }));
        }
        self.finished.extend(tickets.into_iter().zip(done));
        Ok(sampled)
    }

    /// Ends a request, of which nothing is told any more.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.waiting.retain(|(other, _)| *other != ticket);
        self.finished.retain(|(other, _)| *other != ticket);
    }

    /// The requests that have finished since this was asked last.
    pub fn take_finished(&mut self) -> Vec<(Ticket, Result<Completion, LmError>)> {
        std::mem::take(&mut self.finished)
    }

    /// Whether no request waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Requests that wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests that are computed.
    pub fn running(&self) -> usize {
        0
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
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Completion, LmError>>, LmError> {
        if let [only] = &mut self.shards[..] {
            return only.generate(requests);
        }
        let count = self.shards.len();
        let places = places(&requests, &mut self.homes, count);
        let mut parts: Vec<Vec<Request>> = (0..count).map(|_| Vec::new()).collect();
        for (request, &place) in requests.into_iter().zip(&places) {
            parts[place].push(request);
        }
        let threads = (tch::get_num_threads() / count as i32).max(1);
        let work = |(shard, part): (&mut Shard, Vec<Request>)| {
            // libtorch keeps this number for each thread.
            tch::set_num_threads(threads);
            shard.generate(part)
        };
        let done: Vec<_> = std::thread::scope(|scope| {
            let pairs = self.shards.iter_mut().zip(parts);
            let running: Vec<_> = pairs.map(|pair| scope.spawn(move || work(pair))).collect();
            let joined = running.into_iter().map(|thread| thread.join());
            joined.map(|done| done.unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
        });
        let done: Result<Vec<_>, LmError> = done.into_iter().collect();
        let mut done: Vec<_> = match done {
            Ok(done) => done.into_iter().map(Vec::into_iter).collect(),
            Err(error) => {
                self.forget_all();
                return Err(error);
            }
        };
        Ok(places.iter().filter_map(|&place| done[place].next()).collect())
    }
}

/// The shard of every request: where its conversation is at home; new ones go where there is
/// least to do, those that begin with the same prompt together, whose keys and values are
/// then shared.
fn places(requests: &[Request], homes: &mut HashMap<u64, usize>, count: usize) -> Vec<usize> {
    let mut load = vec![0; count];
    for request in requests {
        if let Some(&home) = homes.get(&request.key) {
            load[home] += 1;
        }
    }
    let mut new: Vec<&Request> = requests.iter().filter(|r| !homes.contains_key(&r.key)).collect();
    new.sort_by(|a, b| a.prompt.cmp(&b.prompt));
    let share = requests.len().div_ceil(count);
    let mut place = 0;
    for request in new {
        while load[place] >= share && place + 1 < count {
            place += 1;
        }
        load[place] += 1;
        homes.entry(request.key).or_insert(place);
    }
    requests.iter().map(|request| homes[&request.key]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use leyden_core::{Sampling, SeedTree};

    use super::{Request, places};

    fn request(key: u64, prompt: &[u32]) -> Request {
        Request::new(key, prompt.to_vec(), Sampling::default(), SeedTree::new(1))
    }

    #[test]
    fn equal_prompts_stay_together_and_conversations_at_home() {
        let mut homes = HashMap::new();
        let prompts: [&[u32]; 6] = [&[2], &[1], &[2], &[1], &[2], &[1]];
        let asked: Vec<Request> = (0..).zip(prompts).map(|(key, p)| request(key, p)).collect();
        assert_eq!(places(&asked, &mut homes, 2), [1, 0, 1, 0, 1, 0]);
        // One goes on at home, three are new: two for the shard that has nothing to do.
        let next = [request(0, &[9, 9]), request(7, &[5]), request(8, &[6]), request(9, &[7])];
        assert_eq!(places(&next, &mut homes, 2), [1, 0, 0, 1]);
        // Two requests of one conversation are never apart.
        let twice = [request(20, &[3]), request(20, &[4])];
        assert_eq!(places(&twice, &mut homes, 2), [0, 0]);
    }
}
