//! The generation engine: many prompts in, sampled tokens and their log-probabilities out.
//!
//! Nothing is computed twice that can be kept: one prompt's samples share its keys and values
//! in memory and in the attention products, prompts that begin alike are computed once as far
//! as they do, and a later turn of a conversation computes only what is new. Nothing is
//! padded in the linear layers. What a request generates depends on its own prompt, settings
//! and seed, and on its company only through the rounding of larger or smaller products; the
//! same call after the same calls gives the same bytes.
//!
//! Requests are handed in one by one ([`Engine::submit`]) and join those that are computed
//! between two forward passes ([`Engine::step`]), or all at once ([`Engine::generate`]).

mod admission;
mod attention;
mod batch;
mod cache;
mod fused;
mod grammar;
mod job;
mod model;
mod prefill;
mod request;
mod sampler;
mod shard;
pub(crate) mod single;
mod store;
mod straight;

use std::collections::HashMap;

use tch::Device;

use crate::threads::ThreadTeam;
use crate::{LlamaConfig, LmError, Weights};
pub use request::{Completion, Constraint, Request, Sampled, StopCheck, Ticket, TokenLogprob};
use shard::Shard;

/// Bounds in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest prompt and response together.
    pub context: usize,
    /// Room of the cache, [`Engine::bytes_per_token`] each. Requests that find none wait, and
    /// conversations that nobody goes on with stay as far as there is room.
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

/// The generation engine: one, or several that work side by side (see [`Engine::split`]).
pub struct Engine {
    shards: Vec<Shard>,
    /// Which of several shards holds a conversation of [`Engine::generate`].
    homes: HashMap<u64, usize>,
    team: ThreadTeam,
    tickets: u64,
    /// Tokens of a step in which another shard failed.
    held_back: Vec<Sampled>,
}

impl Engine {
    /// An engine that runs `weights`, on `device`, in their own type.
    pub fn new(config: LlamaConfig, weights: Weights, device: Device, limits: Limits) -> Self {
        Self {
            shards: vec![Shard::new(config, weights, device, limits)],
            homes: HashMap::new(),
            team: ThreadTeam::default(),
            tickets: 0,
            held_back: Vec::new(),
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

    /// Replaces the weights, of the same shape and type, and forgets everything cached. What
    /// runs waits again and goes on by the new weights from the tokens that it has.
    pub fn set_weights(&mut self, weights: Weights) {
        for shard in &mut self.shards[1..] {
            shard.set_weights(weights.shallow_clone());
        }
        self.shards[0].set_weights(weights);
        self.homes.clear();
    }

    /// Forgets a conversation. What of it runs goes on.
    pub fn forget(&mut self, key: u64) {
        self.homes.remove(&key);
        self.shards.iter_mut().for_each(|shard| shard.forget(key));
    }

    /// Forgets all conversations and frees their memory. What runs waits again and goes on from
    /// the tokens that it has.
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

    /// Hands in a request, which is generated by the steps that follow. What is wrong with it
    /// is told by [`Engine::take_finished`], as in [`Engine::generate`].
    pub fn submit(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let place = self.place(&request);
        self.shards[place].submit(ticket, request);
        ticket
    }

    /// The shard with the least to compute before the first token of `request`: where its
    /// conversation or a prompt that begins alike is cached, unless others have far less to do.
    fn place(&self, request: &Request) -> usize {
        /// What another request in a shard delays this one by, in tokens of its prompt.
        const COMPANY: usize = 16;
        if self.shards.len() == 1 {
            return 0;
        }
        let cost = |&place: &usize| {
            let (found, company) = self.shards[place].appeal(request);
            request.prompt.len() - found + COMPANY * company
        };
        (0..self.shards.len()).min_by_key(cost).unwrap_or(0)
    }

    /// Lets waiting requests in and computes: a pass over prompts where any are missing, and
    /// one more token of every request whose prompt is not. Returns these tokens. Several
    /// shards each do so, side by side.
    ///
    /// # Errors
    /// libtorch's own (memory, device), or logits that are not finite. What ran (in that shard)
    /// fails with [`LmError::Failed`], what is cached there is forgotten; those that wait stay,
    /// and the engine goes on with the next step.
    pub fn step(&mut self) -> Result<Vec<Sampled>, LmError> {
        if let [only] = &mut self.shards[..] {
            return only.step();
        }
        let count = self.shards.len();
        let busy = self.shards.iter_mut().filter(|shard| !shard.is_idle()).collect();
        let stepped = self.team.each(count, busy, Shard::step);
        let mut failed = None;
        for stepped in stepped {
            match stepped {
                Ok(sampled) => self.held_back.extend(sampled),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.held_back)),
        }
    }

    /// Drops a request, wherever it is, of which nothing is told any more. `false` if it is
    /// unknown or has been taken.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        self.held_back.retain(|sampled| sampled.ticket != ticket);
        self.shards.iter_mut().any(|shard| shard.cancel(ticket))
    }

    /// The requests that have finished since this was asked last.
    pub fn take_finished(&mut self) -> Vec<(Ticket, Result<Completion, LmError>)> {
        self.shards.iter_mut().flat_map(Shard::take_finished).collect()
    }

    /// Whether no request waits or runs: a step would do nothing.
    pub fn is_idle(&self) -> bool {
        self.shards.iter().all(Shard::is_idle)
    }

    /// Requests that wait to be let in.
    pub fn waiting(&self) -> usize {
        self.shards.iter().map(|shard| shard.waiting.len()).sum()
    }

    /// Requests that are computed.
    pub fn running(&self) -> usize {
        self.shards.iter().map(Shard::running).sum()
    }

    /// Generates a response to every request, in the order of the requests.
    ///
    /// # Errors
    /// The outer error is for the call: libtorch's own (memory, device), or logits that are
    /// not finite; everything cached is forgotten then. Also that submitted requests are
    /// on their way: one engine does the one or the other. The inner ones are for one request,
    /// and the others go on: an empty prompt or one longer than the context, a token outside
    /// the vocabulary, settings that make no sense, a constraint that fails, more tokens than
    /// the cache holds.
    pub fn generate(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Completion, LmError>>, LmError> {
        let on_their_way = self.waiting() + self.running();
        if on_their_way > 0 {
            return Err(LmError::Invalid(format!(
                "generate was called while {on_their_way} submitted requests are on their way: \
                 step until the engine is idle"
            )));
        }
        if let [only] = &mut self.shards[..] {
            return only.generate(requests);
        }
        let count = self.shards.len();
        let places = places(&requests, &mut self.homes, count);
        let mut parts: Vec<Vec<Request>> = (0..count).map(|_| Vec::new()).collect();
        for (request, &place) in requests.into_iter().zip(&places) {
            parts[place].push(request);
        }
        let work = self.shards.iter_mut().zip(parts).collect();
        let generate = |(shard, requests): (&mut Shard, Vec<Request>)| shard.generate(requests);
        let done: Result<Vec<_>, LmError> =
            self.team.each(count, work, generate).into_iter().collect();
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
