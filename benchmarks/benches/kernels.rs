//! The kernels of `leyden kernels` at the tiny model's shape, one by one.
//!
//! `cargo bench -p leyden-benchmarks --bench kernels -- attention` runs some of them;
//! `--save-baseline NAME` and `--baseline NAME` compare two states of the code.

use criterion::{Criterion, Throughput, criterion_main};
use leyden_lm::model::LlamaConfig;
use leyden_lm::process::reexec_with_env;
use leyden_roofline::{KERNELS, Shape, WHOLE};
use tch::{Device, Kind};

/// Small enough for a smoke test, large enough that arithmetic counts.
const TOKENS: usize = 512;

/// Re-executes first: libtorch's threads read their wait policy once, at start-up.
fn benches() {
    reexec_with_env();
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let config = LlamaConfig::named("tiny").expect("a known shape");
    let shape = Shape::new(config, Device::Cpu, Kind::Float, TOKENS);
    for (group, kernels) in [("kernels", KERNELS), ("whole", WHOLE)] {
        let mut group = criterion.benchmark_group(group);
        for (name, maker) in kernels {
            let mut kernel = maker(&shape).expect("the tiny shape fits");
            let work = kernel.work;
            group.throughput(match work.flops > 0.0 {
                true => Throughput::Elements(work.flops as u64),
                false => Throughput::Bytes(work.bytes as u64),
            });
            let mut run = 0;
            group.bench_function(*name, |b| {
                b.iter(|| {
                    run += 1;
                    (kernel.run)(run).expect("the tiny shape fits");
                });
            });
        }
        group.finish();
    }
}

criterion_main!(benches);
