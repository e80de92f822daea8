//! agent-lightning's gateway, and the upstream model server that both gateways proxy.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::header;
use axum::routing::post;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::client::{self, Load};
use super::server::{Process, row, text};
use super::{MODEL, Row};

const SCRIPT: &str = "benchmarks/peers/agentlightning_gateway.py";

/// A model server that returns the same response to every request, on its own thread.
pub struct Upstream {
    /// Ends in `/v1`.
    pub url: String,
}

impl Upstream {
    pub async fn start(tokens: usize) -> Result<Self> {
        let answer = bytes(tokens);
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener)?;
                let handler = move |_: axum::body::Bytes| {
                    let answer = answer.clone();
                    async move { ([(header::CONTENT_TYPE, "application/json")], answer) }
                };
                let routes = axum::Router::new().route("/v1/chat/completions", post(handler));
                Ok(axum::serve(listener, routes).await?)
            })
        });
        Ok(Self { url })
    }
}

/// A response in vLLM's format, with as many tokens as the stub's.
fn bytes(tokens: usize) -> axum::body::Bytes {
    let text = text(tokens);
    let letters: Vec<char> = text.chars().collect();
    let content: Vec<_> = letters
        .chunks(4)
        .map(|piece| {
            let token: String = piece.iter().collect();
            let bytes = token.clone().into_bytes();
            json!({"token": token, "logprob": -0.734375, "bytes": bytes, "top_logprobs": []})
        })
        .collect();
    let ids: Vec<u32> = (0..content.len() as u32).map(|id| 10_000 + id).collect();
    let choice = json!({
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": content},
        "finish_reason": "stop",
        "token_ids": ids,
    });
    let usage = json!({"prompt_tokens": 200, "completion_tokens": tokens,
        "total_tokens": 200 + tokens});
    let prompt: Vec<u32> = (0..200).map(|id| 20_000 + id).collect();
    let answer = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
        "model": MODEL, "choices": [choice], "prompt_token_ids": prompt, "usage": usage});
    answer.to_string().into()
}

/// Measures agent-lightning's gateway.
pub async fn gateway(load: &Load, upstream: &Upstream) -> Result<Row> {
    ensure!(Path::new(SCRIPT).exists(), "run this from the repository's root: no {SCRIPT}");
    let python = |port: u16| {
        let mut command = Command::new("python3");
        command.args([SCRIPT, "--model", MODEL, "--port", &port.to_string()]);
        command
    };
    let installed = python(0).arg("--install-only").status()?;
    ensure!(installed.success(), "agent-lightning cannot be installed; --alone leaves it out");
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let process = Process { child: python(port).stdin(Stdio::null()).spawn()? };
    let address = format!("127.0.0.1:{port}");
    let up = async {
        while TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), up)
        .await
        .context("agent-lightning's gateway does not start")?;
    load.create_rollouts(&address).await?;
    let servers = json!([{"model": MODEL, "endpoint": upstream.url}]);
    client::post(&address, "/api/models", &servers).await?;
    let before = process.cpu_seconds()?;
    let measured = load.run(&address).await?;
    let cpu = process.cpu_seconds()? - before;
    let mut captured = 0;
    for rollout in 0..load.rollouts {
        let path = format!("/api/rollouts/r{rollout}/events?event_type=model_request");
        captured += client::get(&address, &path).await?.as_array().map_or(0, Vec::len);
    }
    Ok(row("agent-lightning 1.0.2, in front of the same", &measured, captured, cpu))
}
