//! Captured chat calls per second: the Lightning Server, and agent-lightning's own gateway under
//! the same load in the same run.
//!
//! ```sh
//! cargo run --release -p leyden-serve-load -- --json results/serve/load.json
//! ```
//!
//! Server and load generator share the machine, in separate processes. The model is a stub that
//! answers immediately, so this measures HTTP, JSON, attribution and the store. The records in
//! the store are counted at the end and reported beside the number of responses.

mod client;
mod peer;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;

use client::Load;

/// The stub's model name.
const MODEL: &str = "stub";

#[derive(Parser)]
#[command(about = "Captured chat calls per second, compared with agent-lightning's gateway")]
struct Options {
    /// Open connections, each with one request in flight.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Length of the measured period in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Length of the warm-up in seconds.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Number of rollouts that the calls are distributed over.
    #[arg(long, default_value_t = 1000)]
    rollouts: usize,
    /// Tokens of the stub's response; 100 tokens are 8.5 KB.
    #[arg(long, default_value_t = 100)]
    tokens: usize,
    /// Leave agent-lightning's gateway out.
    #[arg(long)]
    alone: bool,
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder of the store; a temporary one by default. The store syncs to this folder's disk.
    #[arg(long)]
    store: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Run the measured server in this process.
    #[command(hide = true)]
    Serve { folder: PathBuf, tokens: usize },
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    gateway: String,
    calls_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
    failures: usize,
    /// Calls with a response, including the warm-up.
    answered: usize,
    /// Calls found in the gateway's records.
    captured: usize,
    answer_bytes: usize,
    /// CPU seconds of the gateway's process for 1,000 calls.
    gateway_cpu_s_per_1000: f64,
}

#[derive(Serialize)]
struct Report {
    connections: usize,
    seconds: f64,
    cores: usize,
    /// Load average over the minute before the measurement, which reveals a busy machine.
    load_average: f64,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Role::Serve { folder, tokens }) = &options.role {
        return server::run(folder, *tokens);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&options))?;
    print(&report);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn measure(options: &Options) -> Result<Report> {
    let load_average = std::fs::read_to_string("/proc/loadavg")?;
    let load_average = load_average.split(' ').next().unwrap_or_default().parse()?;
    let load = Load {
        connections: options.connections,
        warm_up: Duration::from_secs_f64(options.warm_up),
        measured: Duration::from_secs_f64(options.seconds),
        rollouts: options.rollouts,
    };
    let mut rows = vec![server::own_model(&load, options).await?];
    let upstream = peer::Upstream::start(options.tokens).await?;
    rows.push(server::as_proxy(&load, options, &upstream).await?);
    if !options.alone {
        rows.push(peer::gateway(&load, &upstream).await?);
    }
    let cores = std::thread::available_parallelism()?.get();
    let (connections, seconds) = (options.connections, options.seconds);
    Ok(Report { connections, seconds, cores, load_average, rows })
}

fn print(report: &Report) {
    println!(
        "{} connections, {} s, {} cores for gateway and load together (load average {})",
        report.connections, report.seconds, report.cores, report.load_average
    );
    println!(
        "{:44} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>6} {:>10}",
        "gateway",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "answered",
        "captured",
        "bytes",
        "CPU s/1000"
    );
    for row in &report.rows {
        println!(
            "{:44} {:>9.0} {:>8.2} {:>8.2} {:>9.2} {:>9} {:>9} {:>6} {:>10.3}",
            row.gateway,
            row.calls_per_second,
            row.p50_ms,
            row.p99_ms,
            row.longest_ms,
            row.answered,
            row.captured,
            row.answer_bytes,
            row.gateway_cpu_s_per_1000,
        );
        if row.failures > 0 {
            println!("  {} calls failed", row.failures);
        }
    }
}
