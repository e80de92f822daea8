//! Where responses end, invalid requests, and the limit on concurrent requests.

use std::sync::Arc;

use leyden_core::FinishReason;
use leyden_lm::LmError;
use leyden_lm::generate::{Limits, Request, StopCheck};

use crate::helpers::{
    LIMITS, alone, assert_same, engine, generate, next_turn, ragged, request, sampling, tokens,
};

#[test]
fn responses_end_at_stop_ids_stop_checks_and_limits() {
    let greedy = |max| request(1, tokens(2, 30), sampling(0.0, max));
    let free = alone(&[greedy(60)]).remove(0);
    let stop_at = free.ids[8];
    let first = free.ids.iter().position(|&id| id == stop_at).unwrap();

    let by_id = Request { stop_ids: Arc::from([60, stop_at]), ..greedy(60) };
    let done = alone(&[by_id]).remove(0);
    assert_eq!((done.ids.as_slice(), done.finish), (&free.ids[..=first], FinishReason::Stop));
    assert_eq!(done.logprobs.len(), done.ids.len());

    struct Fifth(Vec<u32>);
    impl StopCheck for Fifth {
        fn stops(&mut self, id: u32) -> bool {
            self.0.push(id);
            self.0.len() == 5
        }
    }
    let mut calls = 0;
    let counted = move |_| {
        calls += 1;
        calls == 5
    };
    let checks: [Box<dyn StopCheck>; 2] = [Box::new(Fifth(Vec::new())), Box::new(counted)];
    for check in checks {
        let requests = vec![Request { stop: Some(check), ..greedy(60) }];
        let done = engine(LIMITS).generate(requests).unwrap().remove(0).unwrap();
        assert_eq!((done.ids.as_slice(), done.finish), (&free.ids[..5], FinishReason::Stop));
    }

    let done = alone(&[greedy(5), greedy(0)]);
    assert_eq!((done[0].ids.as_slice(), done[0].finish), (&free.ids[..5], FinishReason::Length));
    assert_eq!((done[1].ids.len(), done[1].finish), (0, FinishReason::Length));

    let mut short = engine(Limits { context: 42, ..LIMITS });
    let done = generate(&mut short, &[greedy(60)]).remove(0);
    assert_eq!((done.ids.as_slice(), done.finish), (&free.ids[..12], FinishReason::Length));
}

#[test]
fn a_bad_request_is_reported_and_the_others_continue() {
    let good = || request(0, tokens(1, 20), sampling(1.0, 10));
    let requests = [
        request(1, tokens(1, 401), sampling(1.0, 10)),
        good(),
        request(2, vec![3, 61], sampling(1.0, 10)),
        request(3, vec![], sampling(1.0, 10)),
        request(4, vec![1], sampling(-1.0, 10)),
        request(5, tokens(1, 400), sampling(1.0, 10)),
    ];
    let results = engine(LIMITS).generate(requests.into()).unwrap();
    assert!(matches!(results[0], Err(LmError::PromptTooLong { tokens: 401, limit: 400 })));
    assert!(matches!(results[2], Err(LmError::TokenOutside { id: 61, vocabulary: 61 })));
    assert!(matches!(results[3], Err(LmError::Invalid(_))));
    assert!(matches!(results[4], Err(LmError::Invalid(_))));
    // One that fills the context has no room for a response.
    assert!(matches!(results[5], Err(LmError::PromptTooLong { tokens: 400, limit: 400 })));
    assert_same(&[results[1].as_ref().unwrap().clone()], &alone(&[good()]));

    let mut small = engine(Limits { cache_tokens: 100, ..LIMITS });
    let requests = [request(5, tokens(1, 90), sampling(1.0, 90)), good()];
    let results = small.generate(requests.into()).unwrap();
    assert!(results[0].as_ref().is_err_and(|e| e.to_string().contains("cache of 100")));
    assert_same(&[results[1].as_ref().unwrap().clone()], &alone(&[good()]));
}

#[test]
fn several_waves_match_one_wave() {
    let requests = ragged(&sampling(1.0, 25));
    let whole = generate(&mut engine(LIMITS), &requests);
    let second = next_turn(&requests, &whole, 2);
    let expected = alone(&second);
    // Space for about two and for about five requests at once: conversations are also evicted
    // between the turns.
    for cache_tokens in [400, 1000] {
        let mut small = engine(Limits { cache_tokens, ..LIMITS });
        assert_same(&generate(&mut small, &requests), &whole);
        assert!(small.cached_tokens() <= cache_tokens, "{}", small.cached_tokens());
        assert_same(&generate(&mut small, &second), &expected);
        assert!(small.cached_tokens() <= cache_tokens, "{}", small.cached_tokens());
    }
}
