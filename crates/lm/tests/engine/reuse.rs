//! Groups, shared prefixes and later turns: reuse changes what is computed, not the results.

use leyden_lm::generate::{Engine, Limits, Request};
use tch::{Device, Kind};

use crate::common;
use crate::helpers::{
    LIMITS, alone, assert_same, engine, generate, next_turn, ragged, request, sampling, tokens,
    weights,
};

#[test]
fn a_group_is_prefilled_once_and_matches_single_requests() {
    let prompt = tokens(1, 70);
    let requests: Vec<Request> =
        (0..9).map(|key| request(key, prompt.clone(), sampling(1.0, 35))).collect();
    let mut engine = engine(LIMITS);
    let together = generate(&mut engine, &requests);
    assert_same(&together, &alone(&requests));
    assert_ne!(together[0].ids, together[1].ids, "seeds differ");
    let stats = engine.stats();
    // The last token of a prompt is computed by every sample.
    assert_eq!((stats.prefilled_tokens, stats.reused_tokens), (69 + 9, 8 * 69));
    assert_eq!(stats.generated_tokens, 9 * 35);
}

#[test]
fn several_engines_match_one() {
    let mut requests = ragged(&sampling(1.0, 25));
    requests.extend((20..28).map(|key| request(key, tokens(4, 40), sampling(0.7, 30))));
    let (mut one, mut several) = (engine(LIMITS), engine(LIMITS).split(3).unwrap());
    let first = generate(&mut several, &requests);
    assert_same(&first, &generate(&mut one, &requests));
    // Conversations continue where they are cached, in any order and subset.
    let mut second = next_turn(&requests, &first, 2);
    second.remove(3);
    second.reverse();
    let before = several.stats();
    assert_same(&generate(&mut several, &second), &generate(&mut one, &second));
    let computed = several.stats().prefilled_tokens - before.prefilled_tokens;
    let whole: usize = second.iter().map(|request| request.prompt.len()).sum();
    assert!(computed < whole as u64 / 2, "{computed} of {whole}: nothing was reused");
}

#[test]
fn an_invalid_request_affects_only_itself_among_shards() {
    let mut several = engine(LIMITS).split(2).unwrap();
    let good = |key| request(key, tokens(key, 9), sampling(1.0, 5));
    let requests = [good(1), request(2, vec![], sampling(1.0, 5)), good(3), good(4)];
    let done = several.generate(requests.into()).unwrap();
    assert!(done[1].as_ref().is_err_and(|e| e.to_string().contains("the prompt is empty")));
    let done: Vec<_> = done.into_iter().filter_map(Result::ok).collect();
    assert_same(&done, &alone(&[good(1), good(3), good(4)]));
    assert!(engine(LIMITS).split(0).is_err_and(|e| e.to_string().contains("0 engines")));
}

#[test]
fn common_prefixes_are_computed_once() {
    let system = tokens(3, 50);
    let begin = |rest: &[u32]| [&system[..], rest].concat();
    let prompts = [begin(&[1, 2, 3]), begin(&[1, 9]), begin(&[]), begin(&[1, 2, 4]), tokens(8, 3)];
    let requests: Vec<Request> =
        (0..).zip(prompts).map(|(key, p)| request(key, p, sampling(1.0, 20))).collect();
    let expected = alone(&requests);
    // In one pass, and with passes so small that they end inside the shared prefix.
    for prefill_tokens in [512, 7] {
        let mut engine = engine(Limits { prefill_tokens, ..LIMITS });
        assert_same(&generate(&mut engine, &requests), &expected);
        // Distinct: the system prompt's 50, "1", "2", two tokens of the unrelated prompt; and each
        // prompt's last token.
        assert_eq!(engine.stats().prefilled_tokens, 50 + 2 + 2 + 5);
    }
}

#[test]
fn finished_rows_leave_without_affecting_others() {
    let mut requests = ragged(&sampling(1.0, 0));
    requests.extend((10..30).map(|key| request(key, tokens(key % 4, 20), sampling(1.0, 0))));
    for (i, request) in requests.iter_mut().enumerate() {
        request.sampling.max_tokens = [3, 50, 1, 17, 90][i % 5] + i / 7;
        request.sampling.temperature = [1.0, 0.0, 0.7][i % 3];
    }
    let mut engine = engine(LIMITS);
    let done = generate(&mut engine, &requests);
    assert_same(&done, &alone(&requests));
    // The cached tokens of finished rows remain valid.
    let second = next_turn(&requests, &done, 1);
    let before = engine.stats().prefilled_tokens;
    assert_same(&generate(&mut engine, &second), &alone(&second));
    let new: u64 = (0..30).map(|key| 1 + 1 + key).sum();
    assert_eq!(engine.stats().prefilled_tokens - before, new);
}

#[test]
fn later_turns_compute_only_what_is_new() {
    let first: Vec<Request> =
        (0..6).map(|key| request(key, tokens(key / 3, 60), sampling(1.0, 20))).collect();
    let mut engine = engine(LIMITS);
    let done = generate(&mut engine, &first);
    let second = next_turn(&first, &done, 4);
    let before = engine.stats();
    let done = generate(&mut engine, &second);
    // The response's last token, which was sampled but not computed, and the observation.
    let new: u64 = (0..6).map(|key| 1 + 4 + key).sum();
    assert_eq!(engine.stats().prefilled_tokens - before.prefilled_tokens, new);
    assert_same(&done, &alone(&second));
    // A third turn of every other conversation, in another order, with a new one between.
    let mut third = next_turn(&second, &done, 9);
    third.reverse();
    third.retain(|r| r.key % 2 == 0);
    third.insert(1, request(77, tokens(0, 60), sampling(1.0, 20)));
    assert_same(&generate(&mut engine, &third), &alone(&third));
    // And the remaining ones after that.
    let mut late = next_turn(&second, &done, 2);
    late.retain(|r| r.key % 2 == 1);
    let before = engine.stats();
    assert_same(&generate(&mut engine, &late), &alone(&late));
    let new: u64 = [1, 3, 5].iter().map(|key| 1 + 2 + key).sum();
    assert_eq!(engine.stats().prefilled_tokens - before.prefilled_tokens, new);
}

#[test]
fn a_diverging_prompt_is_computed_from_the_divergence() {
    let base = tokens(1, 50);
    let start = request(1, base.clone(), sampling(1.0, 20));
    for case in 0..5 {
        let mut engine = engine(LIMITS);
        let done = generate(&mut engine, std::slice::from_ref(&start)).remove(0);
        let all = [&base[..], &done.ids].concat();
        let prompt = match case {
            0 => [&all[..60], &[3, 4, 5]].concat(),
            1 => [&all[..20], &[3, 4, 5]].concat(),
            2 => all[..30].to_vec(),
            3 => all[..50].to_vec(),
            _ => all[..58].to_vec(),
        };
        let next = [request(1, prompt, start.sampling.clone())];
        assert_same(&generate(&mut engine, &next), &alone(&next));
        let expected = [50 + 3, 50 + 23, 50 + 30, 50 + 1, 50 + 1][case];
        assert_eq!(engine.stats().prefilled_tokens, expected, "case {case}");
    }
}

#[test]
fn two_requests_of_one_key_do_not_disturb_each_other() {
    let mut engine = engine(LIMITS);
    let mut first: Vec<Request> =
        (0..3).map(|key| request(key, tokens(4, 30), sampling(1.0, 15))).collect();
    first[2].key = 0;
    let done = generate(&mut engine, &first);
    assert_same(&done, &alone(&first));
    let mut second = next_turn(&first, &done, 3);
    second[2].key = 0;
    assert_same(&generate(&mut engine, &second), &alone(&second));
}

#[test]
fn forgetting_and_new_weights_clear_the_cache() {
    let first = [request(1, tokens(1, 40), sampling(1.0, 10))];
    let mut engine = engine(LIMITS);
    let done = generate(&mut engine, &first);
    let second = next_turn(&first, &done, 3);
    engine.forget(1);
    let before = engine.stats().prefilled_tokens;
    assert_same(&generate(&mut engine, &second), &alone(&second));
    assert_eq!(engine.stats().prefilled_tokens - before, second[0].prompt.len() as u64);

    let config = common::tiny(true);
    engine.set_weights(weights(&config, 2, Kind::Float));
    let other = weights(&config, 2, Kind::Float);
    let mut fresh = Engine::new(config, other, Device::Cpu, LIMITS);
    let renewed = generate(&mut engine, &second);
    assert_same(&renewed, &generate(&mut fresh, &second));
    assert_ne!(renewed[0].ids, alone(&second)[0].ids);
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let run = || {
        let mut engine = engine(LIMITS);
        let first = ragged(&sampling(1.0, 30));
        let done = generate(&mut engine, &first);
        let second = next_turn(&first, &done, 3);
        let again = generate(&mut engine, &second);
        [done, again]
            .concat()
            .into_iter()
            .map(|c| (c.ids, c.logprobs.into_iter().map(f32::to_bits).collect::<Vec<_>>()))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
