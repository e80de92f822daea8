//! Requests that arrive and are cancelled between steps: each generates what it generates alone,
//! regardless of arrivals, cancellations and evictions.

use std::collections::HashMap;
use std::ops::Range;

use leyden_core::{FinishReason, SeedTree};
use leyden_lm::LmError;
use leyden_lm::generate::{Completion, Engine, Limits, Request, Sampled, Ticket};
use leyden_lm::model::LlamaConfig;
use tch::{Device, Kind, Tensor};

use crate::common;
use crate::helpers::{
    LIMITS, again, all_again, alone, assert_same, engine, next_turn, ragged, request, sampling,
    tokens, weights,
};

/// The results of submitted requests.
#[derive(Default)]
struct Results {
    streamed: HashMap<Ticket, Vec<Sampled>>,
    done: HashMap<Ticket, Result<Completion, LmError>>,
}

impl Results {
    fn step(&mut self, engine: &mut Engine) {
        for sampled in engine.step().unwrap() {
            self.streamed.entry(sampled.ticket).or_default().push(sampled);
        }
        self.done.extend(engine.take_finished());
    }

    fn finish_all(&mut self, engine: &mut Engine) {
        while !engine.is_idle() {
            self.step(engine);
        }
    }

    /// The response of a request, which equals what was streamed.
    fn take(&mut self, ticket: Ticket) -> Completion {
        let done = self.done.remove(&ticket).expect("it has finished").unwrap();
        let streamed = self.streamed.remove(&ticket).unwrap_or_default();
        assert_eq!(streamed.iter().map(|s| s.id).collect::<Vec<_>>(), done.ids);
        assert_eq!(streamed.iter().map(|s| s.logprob).collect::<Vec<_>>(), done.logprobs);
        done
    }
}

/// Submits everything and steps until all have finished.
fn run(engine: &mut Engine, requests: &[Request]) -> Vec<Completion> {
    let mut results = Results::default();
    let tickets: Vec<Ticket> = all_again(requests).into_iter().map(|r| engine.submit(r)).collect();
    results.finish_all(engine);
    tickets.into_iter().map(|ticket| results.take(ticket)).collect()
}

fn one(engine: &mut Engine, req: &Request) -> Completion {
    run(engine, std::slice::from_ref(req)).remove(0)
}

/// Requests of many lengths and settings.
fn mixed(count: u64) -> Vec<Request> {
    let mut requests = ragged(&sampling(1.0, 0));
    requests.extend(
        (10..10 + count).map(|key| {
            request(key, tokens(key % 5, 12 + 7 * (key as usize % 5)), sampling(1.0, 0))
        }),
    );
    for (i, request) in requests.iter_mut().enumerate() {
        request.sampling.max_tokens = [3, 40, 1, 17, 70][i % 5] + i / 7;
        request.sampling.temperature = [1.0, 0.0, 0.7][i % 3];
    }
    requests
}

#[test]
fn other_requests_and_arrival_times_change_nothing() {
    let requests = mixed(10);
    let expected = alone(&requests);
    assert_same(&run(&mut engine(LIMITS), &requests), &expected);
    // One after the other, some steps apart, prompts in small pieces.
    let mut engine = engine(Limits { prefill_tokens: 11, ..LIMITS });
    let mut results = Results::default();
    let mut tickets = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        tickets.push(engine.submit(again(request)));
        for _ in 0..i % 4 {
            results.step(&mut engine);
        }
    }
    results.finish_all(&mut engine);
    let done: Vec<Completion> = tickets.into_iter().map(|ticket| results.take(ticket)).collect();
    assert_same(&done, &expected);
}

#[test]
fn prefill_does_not_delay_decoding() {
    let mut engine = engine(Limits { prefill_tokens: 16, ..LIMITS });
    let first = engine.submit(request(1, tokens(1, 5), sampling(1.0, 60)));
    let mut results = Results::default();
    while results.streamed.is_empty() {
        results.step(&mut engine);
    }
    engine.submit(request(2, tokens(2, 100), sampling(1.0, 5)));
    for steps in 2..7 {
        results.step(&mut engine);
        assert_eq!(results.streamed[&first].len(), steps, "a token with every step");
        assert_eq!(results.streamed.len(), 1, "100 tokens take seven passes of 16");
    }
    assert_eq!((engine.running(), engine.waiting()), (2, 0));
}

#[test]
fn decoding_is_skipped_for_at_most_three_passes() {
    let mut engine = engine(Limits { prefill_tokens: 16, ..LIMITS });
    let first = engine.submit(request(1, tokens(1, 5), sampling(1.0, 60)));
    let mut results = Results::default();
    while results.streamed.is_empty() {
        results.step(&mut engine);
    }
    for i in 2..8 {
        engine.submit(request(i, tokens(i, 100), sampling(1.0, 5)));
    }
    let counts: Vec<usize> = (0..8)
        .map(|_| {
            results.step(&mut engine);
            results.streamed[&first].len()
        })
        .collect();
    assert_eq!(counts, [1, 1, 1, 2, 2, 2, 2, 3]);
}

/// Trunks were in the order of arrival, but passes follow the order of their tokens: each pass was
/// closed early, since it spanned trunks of others.
#[test]
fn prompts_that_arrive_together_are_computed_in_one_pass() {
    let mut engine = engine(LIMITS);
    let mut results = Results::default();
    for round in 0..3 {
        let seeds = [7, 2, 5, 1, 8, 4, 3, 6].map(|seed| 10 * round + seed);
        let tickets =
            seeds.map(|seed| engine.submit(request(seed, tokens(seed, 40), sampling(1.0, 4))));
        results.step(&mut engine);
        for ticket in tickets {
            assert_eq!(results.streamed[&ticket].len(), 1, "round {round}");
        }
        results.finish_all(&mut engine);
    }
}

/// The tests' model has heads that are computed by tensor operations, as on other devices.
#[test]
fn random_schedules_in_a_small_cache_match_single_requests() {
    random_schedules(0..7, &engine);
}

#[test]
fn random_schedules_with_fused_kernels_match_single_requests() {
    let config = LlamaConfig { head_dim: 16, ..common::tiny(true) };
    random_schedules(0..7, &|limits| {
        let weights = weights(&config, 1, Kind::Float);
        Engine::new(config.clone(), weights, Device::Cpu, limits)
    });
}

/// Random steps, arrivals and cancellations; each remaining request generates what it generates
/// alone.
fn random_schedules(scenarios: Range<u64>, engine: &dyn Fn(Limits) -> Engine) {
    let mut requests = mixed(14);
    requests.iter_mut().for_each(|request| request.sampling.max_tokens *= 2);
    let expected: Vec<Completion> =
        requests.iter().map(|request| one(&mut engine(LIMITS), request)).collect();
    let mut recomputed = 0;
    for scenario in scenarios {
        let seed = SeedTree::new(100 + scenario);
        let pick = |name: &str, i: usize, n: usize| {
            (seed.child(name).index(i as u64).uniform() * n as f64) as usize
        };
        let cache_tokens = [420, 700, 1500, 1 << 20][pick("cache", 0, 4)];
        let prefill_tokens = [7, 40, 512][pick("prefill", 0, 3)];
        let shards = if cache_tokens > 1500 { 1 + pick("shards", 0, 3) } else { 1 };
        let limits = Limits { cache_tokens, prefill_tokens, ..LIMITS };
        let mut engine = engine(limits).split(shards).unwrap();
        let mut results = Results::default();
        let mut tickets: Vec<Option<Ticket>> = vec![None; requests.len()];
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| pick("order", i, 1000));
        for (i, &number) in order.iter().enumerate() {
            tickets[number] = Some(engine.submit(again(&requests[number])));
            for _ in 0..pick("steps", i, 6) {
                results.step(&mut engine);
                assert!(engine.cached_tokens() <= cache_tokens, "{}", engine.cached_tokens());
            }
            if pick("cancel", i, 5) == 0 {
                let cancelled = order[pick("who", i, i + 1)];
                if let Some(ticket) = tickets[cancelled].take_if(|t| !results.done.contains_key(t))
                {
                    assert!(engine.cancel(ticket));
                    assert!(!engine.cancel(ticket));
                }
            }
        }
        results.finish_all(&mut engine);
        assert!(engine.cached_tokens() <= cache_tokens, "{}", engine.cached_tokens());
        for (number, ticket) in tickets.into_iter().enumerate() {
            if let Some(ticket) = ticket {
                assert_same(&[results.take(ticket)], &expected[number..=number]);
            }
        }
        assert!(results.done.is_empty(), "cancelled requests have no result");
        let prompts: u64 = requests.iter().map(|r| r.prompt.len() as u64).sum();
        let stats = engine.stats();
        recomputed += u64::from(stats.prefilled_tokens + stats.reused_tokens > prompts);
    }
    assert!(recomputed > 0, "no scenario was tight enough to evict a request");
}

#[test]
fn evicted_requests_generate_the_same() {
    let requests: Vec<Request> =
        (0..6).map(|key| request(key, tokens(key, 30), sampling(1.0, 150))).collect();
    // Space for two or three of the six when they are long.
    let mut engine = engine(Limits { cache_tokens: 700, ..LIMITS });
    assert_same(&run(&mut engine, &requests), &alone(&requests));
    let prompts: u64 = requests.iter().map(|r| r.prompt.len() as u64).sum();
    let stats = engine.stats();
    assert!(stats.prefilled_tokens > prompts, "{stats:?}: no request was requeued");
    assert_eq!(stats.generated_tokens, 6 * 150);
}

#[test]
fn cache_grows_as_tokens_are_written() {
    let mut engine = engine(LIMITS);
    let req = request(1, tokens(1, 20), sampling(1.0, 300));
    let ticket = engine.submit(req);
    let mut results = Results::default();
    for _ in 0..10 {
        results.step(&mut engine);
    }
    assert!(engine.cached_tokens() <= 64, "{}", engine.cached_tokens());
    assert!(engine.cancel(ticket) && engine.is_idle());
}

#[test]
fn oversized_requests_fail_and_others_continue() {
    let mut engine = engine(Limits { cache_tokens: 128, ..LIMITS });
    let prompt_too_long = engine.submit(request(1, tokens(1, 120), sampling(1.0, 5)));
    let good = request(2, tokens(2, 20), sampling(1.0, 30));
    let good_ticket = engine.submit(again(&good));
    let grows_too_long = engine.submit(request(3, tokens(3, 20), sampling(1.0, 200)));
    let empty = engine.submit(request(4, vec![], sampling(1.0, 5)));
    let nothing = engine.submit(request(5, tokens(1, 5), sampling(1.0, 0)));
    let mut results = Results::default();
    results.finish_all(&mut engine);
    for ticket in [prompt_too_long, grows_too_long] {
        let error = results.done.remove(&ticket).unwrap().unwrap_err().to_string();
        assert!(error.contains("does not fit into a cache of 128"), "{error}");
    }
    assert!(results.done.remove(&empty).unwrap().is_err_and(|e| e.to_string().contains("empty")));
    assert_eq!(results.done.remove(&nothing).unwrap().unwrap().finish, FinishReason::Length);
    assert_same(&[results.take(good_ticket)], &alone(&[good]));
}

#[test]
fn prompts_that_arrive_separately_share_cached_tokens() {
    let mut engine = engine(LIMITS);
    let system = tokens(3, 50);
    let begin = |rest: &[u32]| [&system[..], rest].concat();
    let ask = |key, prompt| request(key, prompt, sampling(1.0, 20));
    let steps = [
        // (prompt, how many of its tokens are found)
        (begin(&[1, 2, 3]), 0),
        (begin(&[1, 2, 3]), 52),     // the same: all but the last token
        (begin(&[1, 2, 4, 5]), 52),  // begins alike
        (begin(&[9]), 50),           // is a beginning
        (system[..30].to_vec(), 29), // within a trunk
        (tokens(9, 20), 0),
    ];
    for (key, (prompt, found)) in (0..).zip(steps) {
        let req = ask(key, prompt);
        let before = engine.stats();
        let done = one(&mut engine, &req);
        assert_same(std::slice::from_ref(&done), &alone(&[again(&req)]));
        assert_eq!(done.cached_tokens, found, "request {key}");
        let after = engine.stats();
        let new = req.prompt.len() - found;
        assert_eq!(after.prefilled_tokens - before.prefilled_tokens, new as u64, "request {key}");
        assert_eq!(after.reused_tokens - before.reused_tokens, found as u64, "request {key}");
    }
}

#[test]
fn a_conversation_continues_under_any_key() {
    let first: Vec<Request> =
        (0..4).map(|key| request(key, tokens(key / 2, 60), sampling(1.0, 20))).collect();
    let mut engine = engine(LIMITS);
    let done = run(&mut engine, &first);
    assert_eq!(done.iter().map(|d| d.cached_tokens).collect::<Vec<_>>(), [0, 59, 0, 59]);
    let mut second = next_turn(&first, &done, 4);
    let lengths: Vec<usize> =
        first.iter().zip(&done).map(|(r, d)| r.prompt.len() + d.ids.len()).collect();
    for request in &mut second {
        request.key += 100;
    }
    // Their seeds remain those of the first keys.
    let expected = alone(&second);
    let again = run(&mut engine, &second);
    assert_same(&again, &expected);
    for (done, length) in again.iter().zip(lengths) {
        assert_eq!(done.cached_tokens, length - 1, "all but the token that was not computed");
    }
    // The same turn repeated finds all of itself except the last token.
    let repeated = run(&mut engine, &second);
    assert_same(&repeated, &expected);
    for (done, req) in repeated.iter().zip(&second) {
        assert_eq!(done.cached_tokens, req.prompt.len() - 1);
    }
}

#[test]
fn generate_and_steps_share_one_cache() {
    let first: Vec<Request> =
        (0..3).map(|key| request(key, tokens(key, 40), sampling(1.0, 10))).collect();
    let mut engine = engine(LIMITS);
    let done = run(&mut engine, &first);
    let second = next_turn(&first, &done, 3);
    let done = engine.generate(all_again(&second)).unwrap();
    let done: Vec<Completion> = done.into_iter().map(Result::unwrap).collect();
    assert_same(&done, &alone(&second));
    assert!(done.iter().all(|done| done.cached_tokens > 40));
    let third = next_turn(&second, &done, 3);
    assert_same(&run(&mut engine, &third), &alone(&third));
    engine.submit(again(&third[0]));
    let refused = engine.generate(all_again(&third)).unwrap_err().to_string();
    assert!(refused.contains("1 submitted requests are in progress"), "{refused}");
}

#[test]
fn new_weights_and_cleared_caches_lose_no_request() {
    let requests = mixed(6);
    let expected = alone(&requests);
    let mut engine = engine(LIMITS).split(2).unwrap();
    let mut results = Results::default();
    let tickets: Vec<Ticket> = all_again(&requests).into_iter().map(|r| engine.submit(r)).collect();
    for i in 0..20 {
        results.step(&mut engine);
        match i {
            5 => engine.set_weights(weights(&common::tiny(true), 1, Kind::Float)),
            9 => engine.forget_all(),
            12 => (0..20).for_each(|key| engine.forget(key)),
            _ => {}
        }
    }
    results.finish_all(&mut engine);
    let done: Vec<Completion> = tickets.into_iter().map(|ticket| results.take(ticket)).collect();
    assert_same(&done, &expected);

    // With other weights it continues from the tokens that it has.
    let req = request(1, tokens(1, 20), sampling(0.0, 30));
    let ticket = engine.submit(again(&req));
    while results.streamed.get(&ticket).is_none_or(|tokens| tokens.len() < 10) {
        results.step(&mut engine);
    }
    engine.set_weights(weights(&common::tiny(true), 2, Kind::Float));
    results.finish_all(&mut engine);
    let done = results.take(ticket);
    assert_eq!(done.ids[..10], alone(&[again(&req)])[0].ids[..10]);
    let rest =
        Request::new(2, [&req.prompt[..], &done.ids[..10]].concat(), sampling(0.0, 20), req.seed);
    let fresh_weights = weights(&common::tiny(true), 2, Kind::Float);
    let mut fresh = Engine::new(common::tiny(true), fresh_weights, Device::Cpu, LIMITS);
    assert_eq!(done.ids[10..], one(&mut fresh, &rest).ids);
}

#[test]
fn a_failing_step_fails_running_requests_and_leaves_the_engine_usable() {
    let config = common::tiny(true);
    let mut engine = engine(LIMITS);
    let mut broken = weights(&config, 1, Kind::Float);
    broken.norm = Tensor::full_like(&broken.norm, f64::NAN);
    let req = request(1, tokens(1, 30), sampling(1.0, 20));
    let first = engine.submit(again(&req));
    for _ in 0..5 {
        engine.step().unwrap();
    }
    engine.set_weights(broken);
    let error = loop {
        // Its prompt is recomputed first.
        if let Err(error) = engine.step() {
            break error;
        }
    };
    assert!(matches!(error, LmError::NotFinite), "{error}");
    let finished = engine.take_finished();
    assert_eq!(finished.len(), 1);
    assert!(finished[0].0 == first && matches!(finished[0].1, Err(LmError::Failed(_))));
    assert!(engine.is_idle());
    engine.set_weights(weights(&config, 1, Kind::Float));
    assert_same(&[one(&mut engine, &req)], &alone(&[again(&req)]));
}

#[test]
fn shards_share_the_work_and_keep_conversations() {
    let mut requests = mixed(20);
    requests.retain(|r| r.prompt.len() > 5);
    let mut several = engine(LIMITS).split(3).unwrap();
    let done = run(&mut several, &requests);
    assert_same(&done, &alone(&requests));
    let second = next_turn(&requests, &done, 2);
    let before = several.stats().prefilled_tokens;
    assert_same(&run(&mut several, &second), &alone(&second));
    let computed = several.stats().prefilled_tokens - before;
    let whole: usize = second.iter().map(|request| request.prompt.len()).sum();
    assert!(computed < whole as u64 / 2, "{computed} of {whole}: nothing was reused");
}
