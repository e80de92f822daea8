//! Benchmark of scored predictions per second, by text and by execution.
//!
//! `cargo run --release -p leyden-spider --example score_rate -- FOLDER CASES.jsonl… [--worker PROGRAM]`
//!
//! FOLDER is a Spider folder; a case has `gold`, `pred` and `db_id`. PROGRAM is a worker, such as
//! `target/release/leyden-sql-worker`; without one, queries run in this process. Every case is
//! scored once before the clock starts, so that databases are open and schemas known, and then
//! again and again for a second on one thread and on all of them.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leyden_spider::{Limits, Spider, Workers, judge};
use rayon::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    gold: String,
    pred: String,
    db_id: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: score_rate FOLDER CASES.jsonl…")?;
    let mut cases: Vec<Case> = Vec::new();
    let mut workers = None;
    while let Some(file) = arguments.next() {
        if file == "--worker" {
            let program = arguments.next().ok_or("--worker: name the program")?;
            workers = Some(Arc::new(Workers::new(program, [""; 0])));
            continue;
        }
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        for (index, line) in text.lines().enumerate() {
            let case = serde_json::from_str(line);
            cases.push(case.map_err(|error| format!("{file}, line {}: {error}", index + 1))?);
        }
    }
    let spider = Spider::open(folder, Limits::default())?.with_workers(workers);
    let text = |case: &Case| {
        let _ = black_box(spider.compare(&case.db_id, &case.gold, &case.pred));
    };
    let execution = |case: &Case| {
        if let Ok(database) = spider.databases().get(&case.db_id) {
            let _ = black_box(judge(&database, &case.gold, &case.pred));
        }
    };
    println!("{} cases, {} threads", cases.len(), rayon::current_num_threads());
    report("exact match and hardness", &cases, text);
    report("execution match", &cases, execution);
    Ok(())
}

fn report(name: &str, cases: &[Case], score: impl Fn(&Case) + Sync) {
    cases.iter().for_each(&score);
    let one = rate(cases.len(), || cases.iter().for_each(&score));
    let all = rate(cases.len(), || cases.par_iter().for_each(&score));
    println!("{name:<26} {one:>10.0} per second on one thread, {all:>10.0} on all");
}

/// Cases per second, repeating `pass` over all of them for at least a second.
fn rate(cases: usize, pass: impl Fn()) -> f64 {
    let started = Instant::now();
    let mut passes = 0;
    while started.elapsed() < Duration::from_secs(1) {
        pass();
        passes += 1;
    }
    (passes * cases) as f64 / started.elapsed().as_secs_f64()
}
