//! Hostile queries against the sandbox: how far past its limits each of them gets.
//!
//! `cargo run --release -p leyden-spider --example hostile -- --worker PROGRAM [--json FILE]`
//!
//! PROGRAM is a worker, such as `target/release/leyden-sql-worker`. Each query runs on a small
//! database under a limit of 2 seconds and 64 MiB, with no limit on instructions. Printed are the
//! outcome, the seconds beyond the limit of time, and how much the resident memory of the worker
//! grew at its peak.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leyden_spider::{Databases, Limits, Workers};
use rusqlite::Connection;
use serde::Serialize;

const TIME: Duration = Duration::from_secs(2);
const MEMORY: usize = 64 << 20;

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    bytes: usize,
    outcome: String,
    seconds: f64,
    seconds_beyond_limit: f64,
    /// Beyond what the worker occupied before the query; absent if it ended with the query.
    peak_mib: Option<f64>,
}

/// `depth` CTEs, each of which reads the one before `width` times.
fn nested(depth: usize, width: usize) -> String {
    let mut sql = "WITH c0 AS (SELECT 1 AS x)".to_owned();
    for i in 1..depth {
        let tables: Vec<String> = (0..width).map(|j| format!("c{} t{j}", i - 1)).collect();
        sql += &format!(",c{i} AS (SELECT t0.x FROM {})", tables.join(","));
    }
    sql + &format!(" SELECT * FROM c{}", depth - 1)
}

fn queries() -> Vec<(&'static str, String)> {
    let long = |letter: char| format!("replace(hex(zeroblob(32000)),'00','{letter}{letter}')");
    let (a, b) = (long('a'), long('b'));
    // Each character is compared with five thousand others.
    let trim = format!("trim({a},substr({b},1,5000)||'a')");
    let count = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) ";
    let many = |call: &str, times: usize| vec![call.to_owned(); times].join("||");
    vec![
        ("nested CTEs, 2 wide", nested(22, 2)),
        ("nested CTEs, 3 wide", nested(16, 3)),
        ("endless recursion", format!("{count}SELECT count(*) FROM c")),
        ("endless recursion, kept rows", format!("{count}SELECT DISTINCT x FROM c")),
        ("LIKE of long texts", format!("SELECT {a}||{a} LIKE '%{}b'", "a%".repeat(49))),
        ("GLOB of long texts", format!("SELECT {a} GLOB '*{}b'", "a*".repeat(49))),
        ("instr of long texts", format!("SELECT instr({a},substr({a},1,32000)||'b')")),
        ("replace of long texts", format!("SELECT replace({a},substr({a},1,32000)||'b','c')")),
        ("trim of long texts", format!("SELECT length({trim})")),
        ("sixty slow calls", format!("SELECT length({})", many(&trim, 60))),
        ("sort of long rows", format!("{count}SELECT x FROM c ORDER BY hex(zeroblob(9000))||x")),
        (
            "sort of a million rows",
            format!("SELECT x FROM ({count}SELECT x FROM c LIMIT 3000000) ORDER BY -x LIMIT 1"),
        ),
        ("group_concat", format!("{count}SELECT length(group_concat(x)) FROM c")),
        ("window over all rows", format!("{count}SELECT sum(x) OVER (ORDER BY -x) FROM c")),
        ("printf of great width", "SELECT length(printf('%.*c',2000000000,'x'))".to_owned()),
        ("zeroblob of a gigabyte", "SELECT zeroblob(1000000000)".to_owned()),
        (
            "cross join",
            format!(
                "SELECT count(*) FROM {}",
                ["item"; 40]
                    .iter()
                    .enumerate()
                    .map(|(i, t)| format!("{t} t{i}"))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ),
        ("wide rows", format!("SELECT {} FROM item", vec!["*"; 600].join(","))),
        ("json_each", format!("{count}SELECT j.value FROM c, json_each('[1,2,3]') j ORDER BY 1")),
        ("clock", "SELECT date('now'), datetime('now','localtime')".to_owned()),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut worker, mut json) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().map(PathBuf::from);
        match name.as_str() {
            "--worker" => worker = value,
            "--json" => json = value,
            other => return Err(format!("{other}: use --worker PROGRAM and --json FILE").into()),
        }
    }
    let worker = worker.ok_or("--worker: name the program, such as leyden-sql-worker")?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("shop"))?;
    let file = folder.path().join("shop/shop.sqlite");
    Connection::open(&file)?.execute_batch(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL);
         INSERT INTO item VALUES (1, 'tea', 2.5), (2, 'cup', 4.0), (3, NULL, 1.0);",
    )?;
    let limits = Limits { instructions: u64::MAX, time: TIME, memory: MEMORY, ..Limits::default() };
    let workers = Arc::new(Workers::new(worker, [""; 0]));
    let databases = Databases::new(folder.path(), limits).with_workers(Some(workers));
    let shop = databases.get("shop")?;
    let mut all = Vec::new();
    for (name, sql) in queries() {
        shop.query("SELECT 1")?;
        forget_peak();
        let before = resident("VmRSS:");
        let started = Instant::now();
        let result = shop.query(&sql);
        let seconds = started.elapsed().as_secs_f64();
        let peak = resident("VmHWM:").zip(before).map(|(peak, before)| peak.saturating_sub(before));
        let outcome = match &result {
            Ok(result) => format!("{} rows", result.rows.len()),
            Err(error) => error.to_string(),
        };
        let measured = Measured {
            name,
            bytes: sql.len(),
            outcome,
            seconds,
            seconds_beyond_limit: (seconds - TIME.as_secs_f64()).max(0.0),
            peak_mib: peak.map(|kib| kib as f64 / 1024.0),
        };
        println!(
            "{:<30} {:>6} bytes {:>7.3} s, {:.3} s beyond, {:>6} MiB  {}",
            measured.name,
            measured.bytes,
            measured.seconds,
            measured.seconds_beyond_limit,
            measured.peak_mib.map_or("-".to_owned(), |mib| format!("{mib:.1}")),
            measured.outcome
        );
        all.push(measured);
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    Ok(())
}

/// The process id of the one worker, a child of this thread.
fn worker_id() -> Option<String> {
    let children = std::fs::read_to_string("/proc/thread-self/children").ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// Has the kernel count the worker's peak of memory from now on.
fn forget_peak() {
    if let Some(id) = worker_id() {
        let _ = std::fs::write(format!("/proc/{id}/clear_refs"), "5");
    }
}

/// A field of the worker's status, in kibibytes.
fn resident(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker_id()?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
