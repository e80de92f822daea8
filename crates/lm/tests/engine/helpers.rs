//! Requests, and engines to run them.

use std::sync::Arc;

use leyden_core::{Sampling, SeedTree};
use leyden_lm::generate::{Completion, Engine, Limits, Request};
use leyden_lm::model::{LlamaConfig, Weights};
use tch::{Device, Kind};

use crate::common;

pub const LIMITS: Limits = Limits { context: 400, cache_tokens: 1 << 20, prefill_tokens: 512 };

pub fn weights(config: &LlamaConfig, seed: u64, kind: Kind) -> Weights {
    Weights::of(&common::parameters(config, seed, false), config, kind).unwrap()
}

pub fn engine(limits: Limits) -> Engine {
    let config = common::tiny(true);
    let weights = weights(&config, 1, Kind::Float);
    Engine::new(config, weights, Device::Cpu, limits)
}

pub fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let seed = SeedTree::new(seed);
    (0..count).map(|i| (seed.index(i as u64).uniform() * 61.0) as u32).collect()
}

pub fn sampling(temperature: f64, max_tokens: usize) -> Sampling {
    Sampling { temperature, max_tokens, ..Sampling::default() }
}

pub fn request(key: u64, prompt: Vec<u32>, sampling: Sampling) -> Request {
    let seed = SeedTree::new(7).index(key);
    Request::new(key, prompt, sampling, seed)
}

/// A copy of the request; a stop check or constraint belongs to a single request and is not copied.
pub fn again(r: &Request) -> Request {
    let fresh = Request::new(r.key, r.prompt.clone(), r.sampling.clone(), r.seed);
    Request { stop_ids: Arc::clone(&r.stop_ids), top_logprobs: r.top_logprobs, ..fresh }
}

pub fn all_again(requests: &[Request]) -> Vec<Request> {
    requests.iter().map(again).collect()
}

pub fn generate(engine: &mut Engine, requests: &[Request]) -> Vec<Completion> {
    engine.generate(all_again(requests)).unwrap().into_iter().map(Result::unwrap).collect()
}

/// Each request alone in a separate engine.
pub fn alone(requests: &[Request]) -> Vec<Completion> {
    requests
        .iter()
        .map(|r| generate(&mut engine(LIMITS), std::slice::from_ref(r)).remove(0))
        .collect()
}

/// The same tokens, and log-probabilities that differ by rounding at most.
pub fn assert_same(a: &[Completion], b: &[Completion]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.ids, b.ids, "request {i}");
        assert_eq!(a.finish, b.finish, "request {i}");
        for (a, b) in a.logprobs.iter().zip(&b.logprobs) {
            // Products of other sizes use other kernels; how far these differ depends on the
            // processor (1.2e-5 seen). A logic error is a thousand times larger.
            assert!((a - b).abs() < 5e-5, "request {i}: {a} {b}");
        }
    }
}

/// Prompts of many lengths, some equal, some with a common prefix.
pub fn ragged(settings: &Sampling) -> Vec<Request> {
    let mut prompts: Vec<Vec<u32>> = [1, 2, 5, 33, 64, 90].map(|n| tokens(n, n as usize)).to_vec();
    prompts.extend([prompts[3].clone(), prompts[0].clone()]);
    prompts.push([&prompts[4][..40], &tokens(50, 7)].concat());
    prompts.push(prompts[4][..41].to_vec());
    let requests = prompts.into_iter().enumerate();
    requests.map(|(key, prompt)| request(key as u64, prompt, settings.clone())).collect()
}

/// The next turn of each conversation: the answer, and at least `added` tokens from the
/// environment.
pub fn next_turn(requests: &[Request], done: &[Completion], added: usize) -> Vec<Request> {
    let next = |(r, done): (&Request, &Completion)| {
        let observed = tokens(1000 + r.key, added + r.key as usize);
        let prompt = [&r.prompt[..], &done.ids, &observed].concat();
        request(r.key, prompt, r.sampling.clone())
    };
    requests.iter().zip(done).map(next).collect()
}
