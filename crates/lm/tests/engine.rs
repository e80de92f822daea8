//! The generation engine against full recomputation without a cache.

mod common;

use std::sync::Arc;

use leyden_core::{FinishReason, Sampling, SeedTree};
use leyden_lm::{
    Attention, Completion, Engine, Limits, LlamaConfig, LmError, Request, Rotary, Weights,
    transform,
};
use tch::{Device, Kind, Tensor};

const LIMITS: Limits = Limits { context: 400, cache_tokens: 1 << 20, prefill_tokens: 512 };

fn weights(config: &LlamaConfig, seed: u64, kind: Kind) -> Weights {
    Weights::of(&common::parameters(config, seed, false), config, kind).unwrap()
}

fn engine(limits: Limits) -> Engine {
    let config = common::tiny(true);
    let weights = weights(&config, 1, Kind::Float);
    Engine::new(config, weights, Device::Cpu, limits)
}

/// Plain causal attention on one sequence, by its definition, in f32.
struct Causal;

impl Attention for Causal {
    fn attend(
        &mut self,
        _layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        let (n, heads, hd) = q.size3().unwrap();
        let repeat = heads / k.size()[1];
        let by_head = |x: &Tensor| x.to_kind(Kind::Float).transpose(0, 1);
        let spread = |x: &Tensor| by_head(x).repeat_interleave_self_int(repeat, 0, None);
        let scores = by_head(q).matmul(&spread(k).transpose(1, 2)) / (hd as f64).sqrt();
        let future = Tensor::ones([n, n], (Kind::Bool, Device::Cpu)).triu(1);
        let p = scores.masked_fill(&future, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        Ok(p.matmul(&spread(v)).transpose(0, 1).reshape([n, heads * hd]).to_kind(q.kind()))
    }
}

/// Logits [tokens, vocabulary] of one sequence, nothing cached.
fn logits(weights: &Weights, config: &LlamaConfig, ids: &[u32]) -> Tensor {
    let _guard = tch::no_grad_guard();
    let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, Device::Cpu));
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let rotary = Rotary::new(config, Device::Cpu);
    let ids = Tensor::from_slice(&ids);
    let hidden = transform(weights, config, &rotary, &ids, &positions, &mut Causal).unwrap();
    hidden.matmul(&weights.head.tr()).to_kind(Kind::Float)
}

/// For each response token the logits it was drawn from, recomputed.
fn response_logits(prompt: &[u32], completion: &Completion) -> Vec<Vec<f64>> {
    let config = common::tiny(true);
    let all = [prompt, &completion.ids].concat();
    let logits = logits(&weights(&config, 1, Kind::Float), &config, &all);
    (0..completion.ids.len())
        .map(|t| {
            let row = logits.get((prompt.len() + t) as i64 - 1).to_kind(Kind::Double);
            Vec::<f64>::try_from(row).unwrap()
        })
        .collect()
}

/// Log-softmax of `logits` / `temperature`, over `kept` ids if given.
fn log_softmax(logits: &[f64], temperature: f64, kept: Option<&[usize]>) -> Vec<f64> {
    let inside = |i: usize| kept.is_none_or(|kept| kept.contains(&i));
    let total: f64 =
        (0..logits.len()).filter(|&i| inside(i)).map(|i| (logits[i] / temperature).exp()).sum();
    let one = |i: usize| {
        if inside(i) { logits[i] / temperature - total.ln() } else { f64::NEG_INFINITY }
    };
    (0..logits.len()).map(one).collect()
}

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let seed = SeedTree::new(seed);
    (0..count).map(|i| (seed.index(i as u64).uniform() * 61.0) as u32).collect()
}

fn sampling(temperature: f64, max_tokens: usize) -> Sampling {
    Sampling { temperature, max_tokens, ..Sampling::default() }
}

fn request(key: u64, prompt: Vec<u32>, sampling: Sampling) -> Request {
    let seed = SeedTree::new(7).index(key);
    Request { key, prompt, sampling, seed, stop_ids: Arc::from([]), stop: None }
}

fn generate(engine: &mut Engine, requests: &[Request]) -> Vec<Completion> {
    engine.generate(requests).unwrap().into_iter().map(Result::unwrap).collect()
}

/// Each request alone in an engine of its own.
fn alone(requests: &[Request]) -> Vec<Completion> {
    requests
        .iter()
        .map(|r| generate(&mut engine(LIMITS), std::slice::from_ref(r)).remove(0))
        .collect()
}

/// The same tokens, log-probabilities that differ by rounding at most.
fn assert_same(a: &[Completion], b: &[Completion]) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.ids, b.ids, "request {i}");
        assert_eq!(a.finish, b.finish, "request {i}");
        for (a, b) in a.logprobs.iter().zip(&b.logprobs) {
            assert!((a - b).abs() < 1e-5, "request {i}: {a} {b}");
        }
    }
}

/// Prompts of many lengths, some equal, some beginning alike.
fn ragged(settings: &Sampling) -> Vec<Request> {
    let mut prompts: Vec<Vec<u32>> = [1, 2, 5, 33, 64, 90].map(|n| tokens(n, n as usize)).to_vec();
    prompts.extend([prompts[3].clone(), prompts[0].clone()]);
    prompts.push([&prompts[4][..40], &tokens(50, 7)].concat());
    prompts.push(prompts[4][..41].to_vec());
    let requests = prompts.into_iter().enumerate();
    requests.map(|(key, prompt)| request(key as u64, prompt, settings.clone())).collect()
}

#[test]
fn greedy_is_the_argmax_of_full_recomputation() {
    let requests = ragged(&sampling(0.0, 40));
    for (request, done) in requests.iter().zip(generate(&mut engine(LIMITS), &requests)) {
        assert_eq!((done.ids.len(), done.finish), (40, FinishReason::Length));
        let recomputed = response_logits(&request.prompt, &done);
        for (t, row) in recomputed.iter().enumerate() {
            let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            assert_eq!(done.ids[t] as usize, best, "key {} token {t}", request.key);
            let expected = log_softmax(row, 1.0, None)[best];
            assert!((f64::from(done.logprobs[t]) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn log_probabilities_are_those_of_full_recomputation() {
    for temperature in [1.0, 0.7] {
        let requests = ragged(&sampling(temperature, 40));
        for (request, done) in requests.iter().zip(generate(&mut engine(LIMITS), &requests)) {
            let recomputed = response_logits(&request.prompt, &done);
            for (t, row) in recomputed.iter().enumerate() {
                let expected = log_softmax(row, temperature, None)[done.ids[t] as usize];
                let error = (f64::from(done.logprobs[t]) - expected).abs();
                assert!(error < 1e-5, "T {temperature} key {} token {t}: {error}", request.key);
            }
        }
    }
}

#[test]
fn filtered_log_probabilities_are_those_of_brute_force() {
    for (top_k, top_p) in [(5, 1.0), (0, 0.8), (10, 0.6)] {
        let settings = Sampling { top_k, top_p, ..sampling(1.3, 30) };
        let requests = ragged(&settings);
        for (request, done) in requests.iter().zip(generate(&mut engine(LIMITS), &requests)) {
            for (t, row) in response_logits(&request.prompt, &done).iter().enumerate() {
                let all = log_softmax(row, 1.3, None);
                let mut ids: Vec<usize> = (0..row.len()).collect();
                ids.sort_by(|&a, &b| all[b].total_cmp(&all[a]));
                ids.truncate(if top_k == 0 { row.len() } else { top_k });
                let left = log_softmax(row, 1.3, Some(&ids));
                let mut running = 0.0;
                let nucleus: Vec<usize> = ids
                    .into_iter()
                    .take_while(|&i| {
                        let needed = running < top_p;
                        running += left[i].exp();
                        needed
                    })
                    .collect();
                let expected = log_softmax(row, 1.3, Some(&nucleus))[done.ids[t] as usize];
                let error = (f64::from(done.logprobs[t]) - expected).abs();
                assert!(error < 1e-5, "k {top_k} p {top_p} key {} token {t}", request.key);
            }
        }
    }
}

#[test]
fn a_group_is_prefilled_once_and_gives_what_its_members_give_alone() {
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
fn prompts_that_begin_alike_are_computed_once_as_far_as_they_do() {
    let system = tokens(3, 50);
    let begin = |rest: &[u32]| [&system[..], rest].concat();
    let prompts = [begin(&[1, 2, 3]), begin(&[1, 9]), begin(&[]), begin(&[1, 2, 4]), tokens(8, 3)];
    let requests: Vec<Request> =
        (0..).zip(prompts).map(|(key, p)| request(key, p, sampling(1.0, 20))).collect();
    let expected = alone(&requests);
    // Whole, and with passes so small that they end inside what is shared.
    for prefill_tokens in [512, 7] {
        let mut engine = engine(Limits { prefill_tokens, ..LIMITS });
        assert_same(&generate(&mut engine, &requests), &expected);
        // Distinct: the system prompt's 50, "1", "2", two tokens of the stranger; and each
        // prompt's last token.
        assert_eq!(engine.stats().prefilled_tokens, 50 + 2 + 2 + 5);
    }
}

#[test]
fn rows_that_finish_leave_and_the_others_notice_nothing() {
    let mut requests = ragged(&sampling(1.0, 0));
    requests.extend((10..30).map(|key| request(key, tokens(key % 4, 20), sampling(1.0, 0))));
    for (i, request) in requests.iter_mut().enumerate() {
        request.sampling.max_tokens = [3, 50, 1, 17, 90][i % 5] + i / 7;
        request.sampling.temperature = [1.0, 0.0, 0.7][i % 3];
    }
    let done = generate(&mut engine(LIMITS), &requests);
    assert_same(&done, &alone(&requests));
}

/// Two more turns on what `first` has answered; the environment's part has `added` tokens.
fn next_turn(requests: &[Request], done: &[Completion], added: usize) -> Vec<Request> {
    let next = |(r, done): (&Request, &Completion)| {
        let heard = tokens(1000 + r.key, added + r.key as usize);
        let prompt = [&r.prompt[..], &done.ids, &heard].concat();
        request(r.key, prompt, r.sampling.clone())
    };
    requests.iter().zip(done).map(next).collect()
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
    // The response's last token, which was sampled but not computed, and what was heard.
    let new: u64 = (0..6).map(|key| 1 + 4 + key).sum();
    assert_eq!(engine.stats().prefilled_tokens - before.prefilled_tokens, new);
    assert_same(&done, &alone(&second));
    // A third turn of every other conversation, in another order, with a new one between.
    let mut third = next_turn(&second, &done, 9);
    third.reverse();
    third.retain(|r| r.key % 2 == 0);
    third.insert(1, request(77, tokens(0, 60), sampling(1.0, 20)));
    assert_same(&generate(&mut engine, &third), &alone(&third));
    // And the rest of them after that.
    let mut late = next_turn(&second, &done, 2);
    late.retain(|r| r.key % 2 == 1);
    assert_same(&generate(&mut engine, &late), &alone(&late));
}

#[test]
fn a_prompt_that_leaves_what_is_cached_is_computed_from_there() {
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
fn forgetting_and_new_weights_drop_what_is_cached() {
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
fn responses_end_at_stop_ids_stop_checks_and_limits() {
    let greedy = |max| request(1, tokens(2, 30), sampling(0.0, max));
    let free = alone(&[greedy(60)]).remove(0);
    let stop_at = free.ids[8];
    let first = free.ids.iter().position(|&id| id == stop_at).unwrap();

    let by_id = Request { stop_ids: Arc::from([60, stop_at]), ..greedy(60) };
    let done = alone(&[by_id]).remove(0);
    assert_eq!((done.ids.as_slice(), done.finish), (&free.ids[..=first], FinishReason::Stop));
    assert_eq!(done.logprobs.len(), done.ids.len());

    let check = |ids: &[u32]| ids.len() == 5;
    let by_check = Request { stop: Some(Box::new(check)), ..greedy(60) };
    let done = alone(&[by_check]).remove(0);
    assert_eq!((done.ids.as_slice(), done.finish), (&free.ids[..5], FinishReason::Stop));

    let done = alone(&[greedy(5), greedy(0)]);
    assert_eq!((done[0].ids.as_slice(), done[0].finish), (&free.ids[..5], FinishReason::Length));
    assert_eq!((done[1].ids.len(), done[1].finish), (0, FinishReason::Length));

    let mut short = engine(Limits { context: 42, ..LIMITS });
    let done = generate(&mut short, &[greedy(60)]).remove(0);
    assert_eq!((done.ids.as_slice(), done.finish), (&free.ids[..12], FinishReason::Length));
}

#[test]
fn a_bad_request_is_told_and_the_others_go_on() {
    let good = || request(0, tokens(1, 20), sampling(1.0, 10));
    let requests = [
        request(1, tokens(1, 401), sampling(1.0, 10)),
        good(),
        request(2, vec![3, 61], sampling(1.0, 10)),
        request(3, vec![], sampling(1.0, 10)),
        request(4, vec![1], sampling(-1.0, 10)),
    ];
    let results = engine(LIMITS).generate(&requests).unwrap();
    assert!(matches!(results[0], Err(LmError::PromptTooLong { tokens: 401, limit: 400 })));
    assert!(matches!(results[2], Err(LmError::TokenOutside { id: 61, vocabulary: 61 })));
    assert!(matches!(results[3], Err(LmError::Invalid(_))));
    assert!(matches!(results[4], Err(LmError::Invalid(_))));
    assert_same(&[results[1].as_ref().unwrap().clone()], &alone(&[good()]));

    let mut small = engine(Limits { cache_tokens: 100, ..LIMITS });
    let requests = [request(5, tokens(1, 90), sampling(1.0, 90)), good()];
    let results = small.generate(&requests).unwrap();
    assert!(results[0].as_ref().is_err_and(|e| e.to_string().contains("cache of 100")));
    assert_same(&[results[1].as_ref().unwrap().clone()], &alone(&[good()]));
}

#[test]
fn waves_give_what_one_wave_gives() {
    let requests = ragged(&sampling(1.0, 25));
    let whole = generate(&mut engine(LIMITS), &requests);
    let second = next_turn(&requests, &whole, 2);
    let expected = alone(&second);
    // Room for about two and for about five requests at once: conversations are also lost
    // between the turns.
    for cache_tokens in [400, 1000] {
        let mut small = engine(Limits { cache_tokens, ..LIMITS });
        assert_same(&generate(&mut small, &requests), &whole);
        assert_same(&generate(&mut small, &second), &expected);
    }
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

#[test]
fn bf16_stays_close_to_f32() {
    let config = common::tiny(true);
    let narrow = weights(&config, 1, Kind::BFloat16);
    // The same rounded weights, computed in f32.
    let names = common::random_tensors(&config, 1);
    let rounded: Vec<(String, Tensor)> =
        names.into_iter().map(|(n, t)| (n, t.to_kind(Kind::BFloat16))).collect();
    let rounded = leyden_lm::Parameters::new(rounded, Kind::Float, Device::Cpu, false).unwrap();
    let wide = Weights::of(&rounded, &config, Kind::Float).unwrap();
    let mut engine = Engine::new(config.clone(), narrow, Device::Cpu, LIMITS);
    let requests = ragged(&sampling(1.0, 30));
    let (mut total, mut count) = (0.0, 0);
    for (request, done) in requests.iter().zip(generate(&mut engine, &requests)) {
        let all = [&request.prompt[..], &done.ids].concat();
        let logits = logits(&wide, &config, &all);
        for (t, &id) in done.ids.iter().enumerate() {
            let row = logits.get((request.prompt.len() + t) as i64 - 1).to_kind(Kind::Double);
            let row = Vec::<f64>::try_from(row).unwrap();
            assert!(done.logprobs[t].is_finite());
            total +=
                (f64::from(done.logprobs[t]) - log_softmax(&row, 1.0, None)[id as usize]).abs();
            count += 1;
        }
    }
    let mean = total / f64::from(count);
    assert!(mean < 0.1, "mean error {mean}");
}

#[test]
fn greedy_continuations_are_those_of_transformers() {
    let Some(folder) = leyden_core::shared_material("fixtures/llama_parity") else { return };
    let config = LlamaConfig::from_file(&folder.join("config.json")).unwrap();
    let tensors = Tensor::read_safetensors(folder.join("model.safetensors")).unwrap();
    let parameters = leyden_lm::Parameters::new(tensors, Kind::Float, Device::Cpu, false).unwrap();
    let weights = Weights::of(&parameters, &config, Kind::Float).unwrap();
    let mut engine = Engine::new(config, weights, Device::Cpu, LIMITS);
    let text = std::fs::read_to_string(folder.join("fixtures.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = |v: &serde_json::Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for case in golden["cases"].as_array().unwrap() {
        let Some(greedy) = case["greedy"].as_array() else { continue };
        for (row, greedy) in greedy.iter().enumerate() {
            let mask = list(&case["attention_mask"][row]);
            let ids = list(&case["input_ids"][row]);
            let prompt = ids.into_iter().zip(mask).filter(|(_, m)| *m == 1).map(|(id, _)| id);
            let greedy = list(greedy);
            let key = requests.len() as u64;
            requests.push(request(key, prompt.collect(), sampling(0.0, greedy.len())));
            expected.push(greedy);
        }
    }
    // The reference never chose the end-of-turn token (its continuations have a fixed
    // length), so they are compared up to where the model wants to end.
    let mut compared = 0;
    for (done, expected) in generate(&mut engine, &requests).iter().zip(expected) {
        let ends = done.ids.iter().position(|&id| id == 1).unwrap_or(expected.len());
        assert_eq!(done.ids[..ends], expected[..ends]);
        compared += ends;
    }
    assert!(compared >= 80, "{compared}");
}
