//! A tiny random Llama, random rows, and a plain oracle for comparison.
#![allow(dead_code, reason = "each test binary uses its part")]

use leyden_core::SeedTree;
use leyden_lm::LmError;
use leyden_lm::model::{
    Attention, Llama3Scaling, LlamaConfig, Parameters, Rotary, Weights, initialise, transform,
};
use leyden_lm::policy::forest::Row;
use leyden_lm::policy::{Policy, PolicyOptions};
use tch::{Device, Kind, Tensor};

pub fn tiny(tied: bool) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 61,
        hidden_size: 32,
        intermediate_size: 48,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: Some(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 16.0,
        }),
        max_positions: 512,
        tied,
        bos: None,
        eos: vec![0],
    }
}

/// Weights large enough that distributions are far from uniform.
pub fn random_tensors(config: &LlamaConfig, seed: u64) -> Vec<(String, Tensor)> {
    let tensors = initialise(config, SeedTree::new(seed)).unwrap();
    tensors
        .into_iter()
        .map(|(name, t)| if t.dim() > 1 { (name, t * 12.0) } else { (name, t) })
        .collect()
}

pub fn parameters(config: &LlamaConfig, seed: u64, trained: bool) -> Parameters {
    Parameters::new(random_tensors(config, seed), Kind::Float, Device::Cpu, trained).unwrap()
}

pub fn policy(config: &LlamaConfig, options: PolicyOptions) -> Policy {
    Policy::new(config.clone(), parameters(config, 1, true), options)
}

/// Groups of rollouts as produced by an agent: calls share a prompt and grow by their own
/// responses, other rows branch off anywhere; one row in three is a duplicate of another.
pub fn rollouts(config: &LlamaConfig, seed: u64) -> (Vec<Row>, Vec<usize>) {
    let seed = SeedTree::new(seed);
    let token = |at: SeedTree| (at.uniform() * config.vocab_size as f64) as u32;
    let tokens = |at: SeedTree, n: usize| -> Vec<u32> {
        (0..n).map(|i| token(at.index(i as u64))).collect()
    };
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for group in 0..3 {
        let at = seed.child("group").index(group);
        let prompt = tokens(at.child("prompt"), 7 + group as usize);
        for rollout in 0..4 {
            // Two of the four rollouts have the same first response.
            let response = tokens(at.child("first").index(rollout / 2), 5);
            let result = tokens(at.child("result").index(rollout), 3);
            let second = tokens(at.child("second").index(rollout), 4 + rollout as usize);
            rows.push(Row::call(&prompt, &response));
            let history = [&prompt[..], &response, &result].concat();
            rows.push(Row::call(&history, &second));
            groups.extend([group as usize; 2]);
        }
        // A supervised row with two ranges that branches off within the prompt.
        let ids = [&prompt[..3], &tokens(at.child("demo"), 8)].concat();
        rows.push(Row { ids, actions: vec![2..4, 6..9] });
        groups.push(group as usize);
    }
    (rows, groups)
}

/// A number in ±1 for action `action` of row `row`.
pub fn number(name: &str, row: usize, action: usize) -> f64 {
    let seed = SeedTree::new(99).child(name).index(row as u64).index(action as u64);
    2.0 * seed.uniform() - 1.0
}

/// Attention on a padded batch by its definition.
struct Padded {
    batch: i64,
    length: i64,
}

impl Attention for Padded {
    fn attend(
        &mut self,
        _layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor, LmError> {
        let (b, l) = (self.batch, self.length);
        let (heads, hd) = (q.size()[1], q.size()[2]);
        let repeat = heads / k.size()[1];
        let split = |x: &Tensor| x.view([b, l, -1, hd]).transpose(1, 2);
        let k = split(k).repeat_interleave_self_int(repeat, 1, None);
        let v = split(v).repeat_interleave_self_int(repeat, 1, None);
        let scores = split(q).matmul(&k.transpose(2, 3)) / (hd as f64).sqrt();
        let future = Tensor::ones([l, l], (Kind::Bool, Device::Cpu)).triu(1);
        let weights = scores.masked_fill(&future, f64::NEG_INFINITY).softmax(-1, Kind::Float);
        Ok(weights.matmul(&v).transpose(1, 2).reshape([b * l, heads * hd]))
    }
}

/// Log-probabilities and entropies of the actions of each row, as part of one graph: one padded row
/// per call, full logits, autograd throughout.
pub fn oracle(
    weights: &Weights,
    config: &LlamaConfig,
    rows: &[Row],
    temperature: f64,
) -> (Vec<Tensor>, Vec<Tensor>) {
    let length = rows.iter().map(|r| r.ids.len()).max().unwrap();
    let (mut ids, mut positions) = (Vec::new(), Vec::new());
    for row in rows {
        ids.extend(row.ids.iter().map(|&id| i64::from(id)));
        ids.extend(vec![0; length - row.ids.len()]);
        positions.extend(0..length as i64);
    }
    let (batch, length) = (rows.len() as i64, length as i64);
    let rotary = Rotary::new(config, Device::Cpu);
    let (ids, positions) = (Tensor::from_slice(&ids), Tensor::from_slice(&positions));
    let mut attention = Padded { batch, length };
    let hidden = transform(weights, config, &rotary, &ids, &positions, &mut attention).unwrap();
    let logits = hidden.matmul(&weights.head.tr()).to_kind(Kind::Float) / temperature;
    let logs = logits.log_softmax(-1, Kind::Float).view([batch, length, -1]);
    let entropy = -(logs.exp() * &logs).sum_dim_intlist(-1, false, Kind::Float);
    let mut logp = Vec::new();
    let mut entropies = Vec::new();
    for (r, row) in rows.iter().enumerate() {
        let at: Vec<i64> = row.actions.iter().cloned().flatten().map(|i| i as i64 - 1).collect();
        let target: Vec<i64> = at.iter().map(|&i| i64::from(row.ids[i as usize + 1])).collect();
        let at = Tensor::from_slice(&at);
        let picked = logs.get(r as i64).index_select(0, &at);
        logp.push(
            picked.gather(1, &Tensor::from_slice(&target).unsqueeze(1), false).squeeze_dim(1),
        );
        entropies.push(entropy.get(r as i64).index_select(0, &at));
    }
    (logp, entropies)
}

/// ‖a − b‖ / ‖b‖.
pub fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((a - &b).norm() / b.norm()).double_value(&[])
}
