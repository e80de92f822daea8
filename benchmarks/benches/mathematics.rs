//! The parts of a training step without tensors: credit, advantage, loss, prefix merging.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_main};
use leyden_benchmarks::work::Rollouts;
use leyden_core::SeedTree;
use leyden_lm::policy::forest;
use leyden_lm::process::reexec_with_env;
use leyden_rl::Rows;
use leyden_rl::config::AlgorithmConfig;
use leyden_rl::credit::Trajectory;
use leyden_rl::loss::LossInput;

const ROLLOUTS: usize = 4096;
const GROUP: usize = 8;
const CALLS: usize = 4;
const TOKENS: usize = 256;

fn trajectories() -> Vec<Trajectory> {
    let seed = SeedTree::new(1);
    let reward = |i: usize| f64::from(u8::from(seed.index(i as u64).uniform() < 0.4));
    (0..ROLLOUTS).map(|i| Trajectory::of_calls(i / GROUP, reward(i), CALLS)).collect()
}

fn reinforcement(c: &mut Criterion) {
    let mut group = c.benchmark_group("rl");
    let tokens = ROLLOUTS * CALLS * TOKENS;
    group.throughput(Throughput::Elements(tokens as u64));
    let trajectories = trajectories();
    let rows = Rows::dense(&[TOKENS; ROLLOUTS * CALLS]);
    let algorithm = AlgorithmConfig::default();
    let assign = || algorithm.assign(black_box(&trajectories), &rows, None);
    group
        .bench_function("credit", |b| b.iter(|| algorithm.credit.assign(black_box(&trajectories))));
    group.bench_function("credit and advantage", |b| b.iter(assign));

    let advantages = assign().expect("rewards are finite").advantages.per_token;
    let weights = algorithm.token_weights(&rows);
    let seed = SeedTree::new(2);
    let logp_old: Vec<f64> = (0..tokens as u64).map(|t| -3.0 * seed.index(t).uniform()).collect();
    // Ratios on both sides of the clips.
    let logp_new: Vec<f64> = (0..tokens as u64)
        .map(|t| logp_old[t as usize] + seed.child("new").index(t).uniform() - 0.5)
        .collect();
    let input = LossInput {
        rows: &rows,
        logp_new: &logp_new,
        logp_old: &logp_old,
        advantages: &advantages,
        weights: &weights,
    };
    group.bench_function("loss", |b| b.iter(|| algorithm.loss.loss(black_box(&input))));
    group.bench_function("all", |b| {
        b.iter(|| {
            let advantages = assign().expect("rewards are finite").advantages.per_token;
            let weights = algorithm.token_weights(&rows);
            algorithm.loss.loss(&LossInput { advantages: &advantages, weights: &weights, ..input })
        })
    });
    group.finish();
}

fn packing(c: &mut Criterion) {
    let batch = Rollouts::make(8, 8, 49_152, 1).batch().expect("made rollouts have calls");
    let mut group = c.benchmark_group("forest");
    group.throughput(Throughput::Elements(batch.row_tokens() as u64));
    group.bench_function("pack", |b| {
        b.iter(|| black_box(&batch).packs(2048).expect("rows are sound"))
    });
    let packs = batch.packs(2048).expect("rows are sound");
    group.bench_function("gather and scatter", |b| {
        b.iter_batched(
            || packs.iter().map(|pack| vec![1.0; pack.actions.len()]).collect::<Vec<_>>(),
            |values| {
                let both = |(pack, values): (&forest::Pack, &Vec<f64>)| {
                    pack.scatter(&pack.gather(black_box(values)))
                };
                packs.iter().zip(&values).map(both).collect::<Vec<_>>()
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

/// Runs in a process configured like the trainer's, whose allocator keeps freed blocks; otherwise
/// the benches would measure page faults of every batch array.
fn benches() {
    reexec_with_env();
    let mut criterion = Criterion::default().sample_size(30).configure_from_args();
    reinforcement(&mut criterion);
    packing(&mut criterion);
}

criterion_main!(benches);
