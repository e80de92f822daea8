//! A tiny model's decoding and training: what the quickstart spends its time on.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_main};
use leyden_benchmarks::play::play;
use leyden_benchmarks::tiny;
use leyden_benchmarks::update::Updater;
use leyden_benchmarks::work::{Conversations, Rollouts};
use leyden_core::{Sampling, SeedTree};
use leyden_lm::settle_process;
use leyden_lm::{Engine, Limits, Optimizer};
use tch::Device;

const PROMPTS: usize = 8;
const SAMPLES: usize = 8;
const NEW_TOKENS: usize = 32;

fn decode(group: &mut BenchmarkGroup<WallTime>) {
    let policy = tiny::policy().expect("the tiny model is sound");
    let weights = policy.inference_weights().expect("the tiny model is sound");
    let limits = Limits { context: 1024, cache_tokens: 1 << 16, prefill_tokens: 2048 };
    let mut engine = Engine::new(tiny::config(), weights, Device::Cpu, limits);
    let given = Conversations::make(PROMPTS, 100, (1, 0), tiny::VOCABULARY, 1);
    let sampling = Sampling { max_tokens: NEW_TOKENS, ..Sampling::default() };
    group.throughput(Throughput::Elements((PROMPTS * SAMPLES * NEW_TOKENS) as u64));
    group.bench_function("decode", |b| {
        b.iter(|| {
            play(&mut engine, &given, SAMPLES, &sampling, SeedTree::new(1))
                .expect("the conversations are sound")
        })
    });
}

fn train(group: &mut BenchmarkGroup<WallTime>) {
    let rollouts = Rollouts::make(4, 8, tiny::VOCABULARY, 1);
    let batch = rollouts.batch().expect("made rollouts have calls");
    let policy = tiny::policy().expect("the tiny model is sound");
    let optimizer = Optimizer::new(policy.trained(), tiny::optimizer(1e-6)).expect("it is trained");
    let mut updater = Updater::new(&policy, optimizer, &batch, 4096);
    group.throughput(Throughput::Elements(rollouts.len() as u64));
    group.bench_function("training step", |b| {
        b.iter(|| updater.update().expect("the gradient is finite"))
    });
}

/// Before anything touches libtorch, whose threads read their policy once.
fn benches() {
    settle_process();
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("tiny");
    decode(&mut group);
    train(&mut group);
    group.finish();
}

criterion_main!(benches);
