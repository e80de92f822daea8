//! Log-probabilities and greedy choices against full recomputation without a cache.

use leyden_core::{FinishReason, Sampling};
use leyden_lm::LmError;
use leyden_lm::generate::{Completion, Engine};
use leyden_lm::model::{Attention, LlamaConfig, Parameters, Rotary, Weights, transform};
use tch::{Device, Kind, Tensor};

use crate::common;
use crate::helpers::{LIMITS, engine, generate, ragged, request, sampling, weights};

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

/// Log-softmax of `logits` / `temperature`, restricted to the ids `kept` if given.
fn log_softmax(logits: &[f64], temperature: f64, kept: Option<&[usize]>) -> Vec<f64> {
    let inside = |i: usize| kept.is_none_or(|kept| kept.contains(&i));
    let total: f64 =
        (0..logits.len()).filter(|&i| inside(i)).map(|i| (logits[i] / temperature).exp()).sum();
    let one = |i: usize| {
        if inside(i) { logits[i] / temperature - total.ln() } else { f64::NEG_INFINITY }
    };
    (0..logits.len()).map(one).collect()
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
fn bf16_stays_close_to_f32() {
    let config = common::tiny(true);
    let narrow = weights(&config, 1, Kind::BFloat16);
    // The same rounded weights, computed in f32.
    let names = common::random_tensors(&config, 1);
    let rounded: Vec<(String, Tensor)> =
        names.into_iter().map(|(n, t)| (n, t.to_kind(Kind::BFloat16))).collect();
    let rounded = Parameters::new(rounded, Kind::Float, Device::Cpu, false).unwrap();
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
    let parameters = Parameters::new(tensors, Kind::Float, Device::Cpu, false).unwrap();
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
    // The reference never chose the end-of-turn token (its continuations have a fixed length), so
    // they are compared up to where the model would end.
    let mut compared = 0;
    for (done, expected) in generate(&mut engine, &requests).iter().zip(expected) {
        let ends = done.ids.iter().position(|&id| id == 1).unwrap_or(expected.len());
        assert_eq!(done.ids[..ends], expected[..ends]);
        compared += ends;
    }
    assert!(compared >= 80, "{compared}");
}
