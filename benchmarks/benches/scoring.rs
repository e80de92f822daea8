//! Throughput of dataset scoring and corpus search, on all cores.
//!
//! Spider's scorers run over the official evaluators' cases if these are available, else over
//! mini-spider with each reference query as its own prediction. BM25 runs over synthetic
//! passages of about eighty words with Zipf-distributed frequencies.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leyden_core::{Passage, SeedTree, shared_material};
use leyden_mini::MiniSpider;
use leyden_retrieval::{Bm25, BuildOptions, Retriever};
use leyden_spider::{Limits, Spider, judge};
use rayon::prelude::*;
use serde::Deserialize;

/// Whether each bench runs only once, as a smoke test.
fn smoke() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

#[derive(Deserialize)]
struct Case {
    gold: String,
    pred: String,
    db_id: String,
}

/// The cases, and the databases that they query.
fn cases(of_world: &Path) -> (Vec<Case>, Spider) {
    let open = |folder: &Path| Spider::open(folder, Limits::default()).expect("tables.json");
    let golden = shared_material("fixtures/scores/spider.jsonl");
    if let (Some(golden), Some(data)) = (golden, shared_material("data/spider")) {
        let text = std::fs::read_to_string(golden).expect("the cases are a text");
        let case = |line: &str| serde_json::from_str(line).expect("a line is a case");
        return (text.lines().map(case).collect(), open(&data));
    }
    let world = MiniSpider::new(0);
    world.write_databases(of_world).expect("a temporary folder");
    let case = |task: leyden_core::Task| Case {
        db_id: task.fields["db_id"].as_str().unwrap_or_default().to_owned(),
        pred: task.gold.clone(),
        gold: task.gold,
    };
    (world.test(1024).into_iter().map(case).collect(), open(of_world))
}

fn spider(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cases, spider) = cases(folder.path());
    let mut group = c.benchmark_group("spider");
    group.throughput(Throughput::Elements(cases.len() as u64));
    group.bench_function("exact match and hardness", |b| {
        b.iter(|| {
            let compare = |case: &Case| spider.compare(&case.db_id, &case.gold, &case.pred).is_ok();
            black_box(&cases).par_iter().filter(|case| compare(case)).count()
        })
    });
    group.bench_function("execution match", |b| {
        b.iter(|| {
            let matches = |case: &Case| {
                let database = spider.databases().get(&case.db_id).ok()?;
                Some(judge(&database, &case.gold, &case.pred).ok()?.matches())
            };
            black_box(&cases).par_iter().filter(|case| matches(case) == Some(true)).count()
        })
    });
    group.finish();
}

const VOCABULARY: f64 = 100_000.0;
const QUERIES: u64 = 2_000;
const TOP: usize = 4;

/// Words whose rank is drawn with probability about 1 / rank.
fn words(node: SeedTree, count: u64) -> String {
    let word = |i| {
        let rank = VOCABULARY.powf(node.index(i).uniform()) as u64;
        format!("w{:x}", rank.wrapping_mul(0x9e37_79b9) & 0xffff_ffff)
    };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

fn bm25(c: &mut Criterion) {
    let count = if smoke() { 500 } else { 100_000 };
    let root = SeedTree::new(1);
    let passage = |n: u64| {
        let node = root.child("passage").index(n);
        let length = 60 + (node.child("length").uniform() * 40.0) as u64;
        let (id, title) = (n.to_string(), words(node.child("title"), 3));
        Passage { id, title, text: words(node.child("text"), length) }
    };
    let passages: Vec<Passage> = (0..count).into_par_iter().map(passage).collect();
    let queries: Vec<String> =
        (0..QUERIES).map(|n| words(root.child("query").index(n), 8)).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut number = 0;
    let mut build = || {
        number += 1;
        let path = folder.path().join(number.to_string());
        let passages = passages.iter().cloned().map(Ok);
        Bm25::build(&path, passages, &BuildOptions::default(), &mut |_| {}).expect("an index");
        path
    };
    let index = Bm25::open(build()).expect("the index just built");

    let mut group = c.benchmark_group("bm25");
    group.sample_size(10);
    group.throughput(Throughput::Elements(count));
    group.bench_function("build", |b| b.iter(&mut build));
    group.throughput(Throughput::Elements(QUERIES));
    group.bench_function("search, top 4", |b| {
        b.iter(|| {
            let found = |query: &String| index.retrieve(query, TOP).map_or(0, |hits| hits.len());
            black_box(&queries).par_iter().map(found).sum::<usize>()
        })
    });
    group.finish();
}

criterion_group!(benches, spider, bm25);
criterion_main!(benches);
