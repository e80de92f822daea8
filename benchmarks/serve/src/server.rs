//! The Lightning Server under load, in a separate process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use leyden_serve::backend::stub::Scripted;
use leyden_serve::gateway::{Gateway, GatewayConfig};
use leyden_serve::store::{FILE, Filter, Limits, Reading, Store};
use serde_json::json;

use super::client::{self, Load, Measured};
use super::peer::Upstream;
use super::{MODEL, Options, Row};

/// Entry point of the measured process: serves until standard input closes.
pub fn run(folder: &Path, tokens: usize) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let store = Store::open(folder, Limits::default())?;
        let config = GatewayConfig { port: 0, ..GatewayConfig::default() };
        let model = Arc::new(Scripted::constant(MODEL, &text(tokens)));
        let gateway = Gateway::new(config, store, Some(model)).await?;
        let listener = gateway.bind().await?;
        println!("listening on {}", listener.local_addr()?);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            drop(end);
        });
        gateway.serve(listener, async { drop(ended.await) }).await;
        Ok(())
    })
}

/// Text of `tokens` tokens: the stub's tokens have four characters each.
pub fn text(tokens: usize) -> String {
    "SELECT name FROM departments ".chars().cycle().take(4 * tokens).collect()
}

/// A child process whose CPU time can be read.
pub struct Process {
    pub child: Child,
}

impl Process {
    /// CPU seconds used so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).context(path)?;
        // Fields 14 and 15 (utime, stime), counted after the name, which may contain spaces.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: Vec<f64> =
            fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
        Ok(ticks.iter().sum::<f64>() / 100.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(folder: &Path, tokens: usize) -> Result<(Process, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg(folder)
        .arg(tokens.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    let line = BufReader::new(output).lines().next().context("the server did not start")??;
    let address = line.strip_prefix("listening on ").context(line.clone())?.to_owned();
    Ok((Process { child }, address))
}

/// The server with its own model.
pub async fn own_model(load: &Load, options: &Options) -> Result<Row> {
    under_load("Leyden, its own model", load, options, None).await
}

/// The server as a proxy of a model server, like agent-lightning's gateway.
pub async fn as_proxy(load: &Load, options: &Options, upstream: &Upstream) -> Result<Row> {
    under_load("Leyden, in front of a model server", load, options, Some(upstream)).await
}

async fn under_load(
    name: &str,
    load: &Load,
    options: &Options,
    upstream: Option<&Upstream>,
) -> Result<Row> {
    let temporary = tempfile::tempdir()?;
    let folder = match &options.store {
        Some(folder) => folder.join(if upstream.is_some() { "proxy" } else { "own" }),
        None => temporary.path().to_owned(),
    };
    let (mut process, address) = start(&folder, options.tokens)?;
    load.create_rollouts(&address).await?;
    if let Some(upstream) = upstream {
        let servers = json!([{"model": MODEL, "endpoint": upstream.url}]);
        client::post(&address, "/api/models", &servers).await?;
    }
    let before = process.cpu_seconds()?;
    let measured = load.run(&address).await?;
    let cpu = process.cpu_seconds()? - before;
    drop(process.child.stdin.take());
    process.child.wait()?;
    let captured = captured(folder.join(FILE))?;
    Ok(row(name, &measured, captured, cpu))
}

/// Counts the calls recorded in the store.
fn captured(path: PathBuf) -> Result<usize> {
    let reading = Reading::open(&path)?;
    let mut calls = 0;
    for rollout in reading.rollouts(&Filter::default())? {
        let counts = reading.event_counts(&rollout.id)?;
        calls += counts.iter().map(|(_, _, count)| *count as usize).sum::<usize>();
    }
    Ok(calls)
}

pub fn row(name: &str, measured: &Measured, captured: usize, cpu: f64) -> Row {
    Row {
        gateway: name.to_owned(),
        calls_per_second: measured.rate(),
        p50_ms: measured.quantile_ms(0.5),
        p99_ms: measured.quantile_ms(0.99),
        longest_ms: measured.quantile_ms(1.0),
        failures: measured.failures,
        answered: measured.answered,
        captured,
        answer_bytes: measured.answer_bytes,
        gateway_cpu_s_per_1000: cpu / measured.answered.max(1) as f64 * 1e3,
    }
}
