//! A large step without tensors: credit, advantage, token weights and loss of 4,096 rollouts of
//! four calls of 256 tokens. Here rather than beside the benches of the model, so that it can
//! be measured without libtorch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leyden_core::SeedTree;
use leyden_rl::Rows;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::credit::Episode;
use leyden_rl::loss::LossInput;

const ROLLOUTS: usize = 4096;
const GROUP: usize = 8;
const CALLS: usize = 4;
const TOKENS: usize = 256;

fn step(c: &mut Criterion) {
    let seed = SeedTree::new(1);
    let reward = |i: usize| f64::from(u8::from(seed.index(i as u64).uniform() < 0.4));
    let episodes: Vec<Episode> =
        (0..ROLLOUTS).map(|i| Episode::of_calls(i / GROUP, reward(i), CALLS)).collect();
    let rows = Rows::dense(&[TOKENS; ROLLOUTS * CALLS]);
    let algorithm = AlgorithmConfig::default();
    let draws = |name: &str, scale: f64| -> Vec<f64> {
        let seed = SeedTree::new(2).child(name);
        (0..rows.tokens() as u64).map(|t| scale * seed.index(t).uniform()).collect()
    };
    let logp_old = draws("old", -3.0);
    // Ratios on both sides of the clips.
    let logp_new: Vec<f64> =
        logp_old.iter().zip(draws("new", 1.0)).map(|(old, by)| old + by - 0.5).collect();

    let mut group = c.benchmark_group("step");
    group.throughput(Throughput::Elements(rows.tokens() as u64));
    let assign = || algorithm.assign(black_box(&episodes), &rows, None).expect("finite rewards");
    group.bench_function("credit", |b| b.iter(|| algorithm.credit.assign(black_box(&episodes))));
    group.bench_function("credit and advantage", |b| b.iter(assign));
    group.bench_function("token weights", |b| b.iter(|| algorithm.token_weights(&rows)));
    let (assigned, weights) = (assign(), algorithm.token_weights(&rows));
    let input = LossInput {
        rows: &rows,
        logp_new: &logp_new,
        logp_old: &logp_old,
        advantages: &assigned.advantages.per_token,
        weights: &weights,
    };
    group.bench_function("loss", |b| b.iter(|| algorithm.loss.loss(black_box(&input))));
    group.bench_function("all", |b| {
        b.iter(|| {
            let assigned = assign();
            let weights = algorithm.token_weights(&rows);
            let advantages = &assigned.advantages.per_token;
            algorithm.loss.loss(&LossInput { advantages, weights: &weights, ..input })
        })
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = step
}
criterion_main!(benches);
