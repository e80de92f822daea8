//! The load generator: connections that each keep one request in flight.
//!
//! Requests are serialised beforehand and only the status and length of responses are parsed, so
//! that the load takes little of the CPU time that it shares with the gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Parameters of the load.
pub struct Load {
    pub connections: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    pub rollouts: usize,
}

/// Measurements over the calls of all connections.
pub struct Measured {
    /// Latency of every call within the measured period in seconds, ascending.
    pub latencies: Vec<f64>,
    pub failures: usize,
    /// Responses with status 200, including the warm-up.
    pub answered: usize,
    pub answer_bytes: usize,
    /// Length of the measured period.
    pub seconds: f64,
}

impl Measured {
    /// Latency quantile in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (share * last as f64).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |seconds| seconds * 1e3)
    }

    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }
}

/// A request with a conversation of about two hundred tokens.
pub fn body() -> Value {
    let system = "You answer questions about a database with one SQL query. ".repeat(8);
    let question = "Which departments have more than three employees, and who leads them? ";
    json!({
        "model": "auto",
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question.repeat(3)},
        ],
        "max_tokens": 256,
    })
}

fn request(address: &str, path: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         authorization: Bearer none\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

impl Load {
    /// Creates the rollouts at a gateway.
    pub async fn create_rollouts(&self, address: &str) -> Result<()> {
        let all: Vec<Value> = (0..self.rollouts)
            .map(|rollout| json!({"input": "load", "rollout_id": format!("r{rollout}")}))
            .collect();
        post(address, "/api/rollouts", &Value::Array(all)).await
    }

    /// Calls the gateway at `address` from all connections.
    pub async fn run(&self, address: &str) -> Result<Measured> {
        let body = body().to_string();
        let requests: Vec<Vec<u8>> = (0..self.rollouts)
            .map(|rollout| {
                let path = format!(
                    "/proxy/rollout/r{rollout}/attempt/0/mode/train/openai/v1/chat/completions"
                );
                request(address, &path, &body)
            })
            .collect();
        let requests = Arc::new(requests);
        let begin = Instant::now() + self.warm_up;
        let end = begin + self.measured;
        let connections: Vec<_> = (0..self.connections)
            .map(|number| {
                let (requests, address) = (requests.clone(), address.to_owned());
                let step = self.connections;
                tokio::spawn(
                    async move { call(&address, &requests, number, step, begin, end).await },
                )
            })
            .collect();
        let mut all = Measured {
            latencies: Vec::new(),
            failures: 0,
            answered: 0,
            answer_bytes: 0,
            seconds: self.measured.as_secs_f64(),
        };
        for connection in connections {
            let one = connection.await??;
            all.latencies.extend(one.latencies);
            all.failures += one.failures;
            all.answered += one.answered;
            all.answer_bytes = one.answer_bytes;
        }
        all.latencies.sort_by(f64::total_cmp);
        Ok(all)
    }
}

async fn call(
    address: &str,
    requests: &[Vec<u8>],
    number: usize,
    step: usize,
    begin: Instant,
    end: Instant,
) -> Result<Measured> {
    let mut stream = TcpStream::connect(address).await.context("no connection")?;
    stream.set_nodelay(true)?;
    let mut measured =
        Measured { latencies: Vec::new(), failures: 0, answered: 0, answer_bytes: 0, seconds: 0.0 };
    let mut buffer = Vec::with_capacity(64 << 10);
    for request in requests.iter().cycle().skip(number).step_by(step) {
        let started = Instant::now();
        if started >= end {
            break;
        }
        stream.write_all(request).await?;
        let (status, bytes) = answer(&mut stream, &mut buffer).await?;
        if status != 200 {
            measured.failures += 1;
            continue;
        }
        measured.answered += 1;
        measured.answer_bytes = bytes;
        let now = Instant::now();
        if started >= begin && now <= end {
            measured.latencies.push((now - started).as_secs_f64());
        }
    }
    Ok(measured)
}

/// Reads one response; returns its status and the length of its body.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(u16, usize)> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the gateway closed the connection");
        }
        let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?;
        let status = text.split(' ').nth(1).context("no status")?.parse()?;
        let length = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .context("a response without content-length")?;
        let length: usize = length.1.trim().parse()?;
        while buffer.len() < head + 4 + length {
            if stream.read_buf(buffer).await? == 0 {
                bail!("the gateway closed the connection in the middle of a response");
            }
        }
        return Ok((status, length));
    }
}

/// Posts JSON and expects success.
pub async fn post(address: &str, path: &str, body: &Value) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&request(address, path, &body.to_string())).await?;
    let (status, _) = answer(&mut stream, &mut Vec::new()).await?;
    if !(200..300).contains(&status) {
        bail!("{path} answered {status}");
    }
    Ok(())
}

/// Gets JSON.
pub async fn get(address: &str, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut buffer = Vec::new();
    let (status, length) = answer(&mut stream, &mut buffer).await?;
    if status != 200 {
        bail!("{path} answered {status}");
    }
    Ok(serde_json::from_slice(&buffer[buffer.len() - length..])?)
}
