//! Registered model servers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use leyden_serve::gateway::{GatewayConfig, UpstreamConfig};
use serde_json::{Value, json};

use super::harness::{Harness, chat_body, chat_path, config};

/// A model server that returns the queued statuses in order, then 200.
#[derive(Default)]
struct Server {
    statuses: Mutex<Vec<u16>>,
    bodies: Mutex<Vec<(String, Value)>>,
}

async fn answer(
    State(server): State<Arc<Server>>,
    Path(path): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    server.bodies.lock().expect("no panic").push((path.clone(), body));
    if let Some(status) = server.statuses.lock().expect("no panic").pop() {
        let status = StatusCode::from_u16(status).expect("a status");
        return (status, Json(json!({"error": {"message": "not now"}}))).into_response();
    }
    let logprobs: Vec<Value> =
        [-0.1, -0.2].map(|logprob| json!({"token": "t", "logprob": logprob})).into();
    let message = json!({"role": "assistant", "content": "from upstream"});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop",
        "logprobs": {"content": logprobs}, "token_ids": [7, 8]});
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    Json(json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "prompt_token_ids": [1, 2, 3], "choices": [choice], "usage": usage, "own": "field"}))
    .into_response()
}

async fn start(statuses: &[u16]) -> (Arc<Server>, String) {
    let statuses = statuses.iter().rev().copied().collect();
    let server = Arc::new(Server { statuses: Mutex::new(statuses), ..Server::default() });
    let routes = axum::Router::new()
        .route("/v1/{*path}", axum::routing::post(answer))
        .with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (server, url)
}

fn quick(tries: u32) -> GatewayConfig {
    let upstream =
        UpstreamConfig { tries, first_wait: Duration::from_millis(1), ..UpstreamConfig::default() };
    GatewayConfig { upstream, ..config() }
}

async fn harness(config: GatewayConfig, urls: &[&str]) -> Harness {
    let harness = Harness::modelless(config).await;
    let servers: Vec<Value> =
        urls.iter().map(|url| json!({"model": "m", "endpoint": url, "version": 4})).collect();
    harness.post("/api/models", json!(servers)).await.is(201);
    harness.rollout("r").await;
    harness
}

#[tokio::test]
async fn the_body_is_rewritten_and_the_response_forwarded() {
    let (server, url) = start(&[]).await;
    let harness = harness(quick(6), &[&url]).await;
    let mut body = chat_body("1+1");
    body["temperature"] = json!(0.1);
    body["guided_json"] = json!({"own": true});
    let answer = harness.post(&chat_path("r"), body.clone()).await.is(200).json();
    assert_eq!(answer["own"], "field", "unknown fields are forwarded");
    let sent = server.bodies.lock().expect("no panic")[0].clone();
    assert_eq!(sent.0, "chat/completions");
    for (key, value) in [
        ("model", json!("m")),
        ("temperature", json!(1.0)),
        ("top_p", json!(1.0)),
        ("return_token_ids", json!(true)),
        ("logprobs", json!(true)),
        ("guided_json", json!({"own": true})),
    ] {
        assert_eq!(sent.1[key], value, "{key}");
    }
    harness.post(&chat_path("r").replace("train", "val"), body).await.is(200);
    let sent = server.bodies.lock().expect("no panic")[1].1.clone();
    assert_eq!((sent["temperature"].clone(), sent.get("logprobs")), (json!(0.7), None));
    let events = harness.get("/api/rollouts/r/events?format=triplet").await.is(200).json();
    let data = &events[0]["data"];
    assert_eq!(data["prompt_token_ids"], json!([1, 2, 3]));
    assert_eq!(data["response_token_ids"], json!([7, 8]));
    assert_eq!(data["response_log_probs"].as_array().map(Vec::len), Some(2));
    assert_eq!(data["server"], json!({"model": "m", "version": 4}));
}

#[tokio::test]
async fn transient_failures_are_retried() {
    let (server, url) = start(&[500, 429, 408]).await;
    let harness = harness(quick(6), &[&url]).await;
    harness.chat("r", "1+1").await.is(200);
    assert_eq!(server.bodies.lock().expect("no panic").len(), 4);
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events[0]["data"]["retry_count"], 3);
    assert_eq!(events[0]["data"]["status"], "ok");
}

#[tokio::test]
async fn the_last_failure_is_returned_and_recorded() {
    let (server, url) = start(&[503, 503, 503]).await;
    let harness = harness(quick(2), &[&url]).await;
    harness.chat("r", "1+1").await.is(503);
    assert_eq!(server.bodies.lock().expect("no panic").len(), 2);
    let events = harness.get("/api/rollouts/r/events?format=triplet").await.is(200).json();
    assert_eq!(events[0]["data"]["status"], "error");
    assert_eq!(events[0]["data"]["error"]["message"], "not now");
    assert_eq!(events[0]["data"]["response_log_probs"], Value::Null);
    let (server, url) = start(&[400]).await;
    let harness = self::harness(quick(6), &[&url]).await;
    harness.chat("r", "1+1").await.is(400);
    assert_eq!(server.bodies.lock().expect("no panic").len(), 1, "400 is not retried");
}

#[tokio::test]
async fn an_unreachable_server_is_502() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    drop(listener);
    let harness = harness(quick(2), &[&url]).await;
    let got = harness.chat("r", "1+1").await.is(502).json();
    assert_eq!(got["detail"], "Upstream model server request failed");
}

#[tokio::test]
async fn a_rollout_stays_with_one_server() {
    let (first, a) = start(&[]).await;
    let (second, b) = start(&[]).await;
    let harness = harness(quick(1), &[&a, &b]).await;
    for id in ["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"] {
        harness.rollout(id).await;
        let before = (count(&first), count(&second));
        for _ in 0..3 {
            harness.chat(id, "1+1").await.is(200);
        }
        let served = (count(&first) - before.0, count(&second) - before.1);
        assert!(served == (3, 0) || served == (0, 3), "{id}: {served:?}");
    }
    assert!(count(&first) > 0 && count(&second) > 0);
}

fn count(server: &Server) -> usize {
    server.bodies.lock().expect("no panic").len()
}

#[tokio::test]
async fn streams_and_responses_work_with_plain_upstream_calls() {
    let (server, url) = start(&[]).await;
    let harness = harness(quick(1), &[&url]).await;
    let mut body = chat_body("1+1");
    body["stream"] = json!(true);
    let stream = harness.post(&chat_path("r"), body).await.is(200).text;
    assert!(stream.contains("from upstream") && stream.ends_with("data: [DONE]\n\n"), "{stream}");
    let path = chat_path("r").replace("chat/completions", "responses");
    let answer = harness.post(&path, json!({"model": "auto", "input": "2+2"})).await.is(200).json();
    assert_eq!(answer["output"][0]["content"][0]["text"], "from upstream");
    for (path, body) in server.bodies.lock().expect("no panic").iter() {
        assert_eq!(path, "chat/completions");
        assert_eq!(body.get("stream"), None);
        assert_eq!(body["return_token_ids"], true);
    }
    let calls = harness.store.calls("r").await.expect("calls");
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| call.answer.response_ids == [7, 8]));
}

#[tokio::test]
async fn registered_servers_survive_a_restart() {
    use leyden_serve::store::{Limits, Store};
    let (_server, url) = start(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Store::open(folder.path(), Limits::default()).expect("a store");
    let harness = Harness::over(open(), quick(1), None).await;
    harness.post("/api/models", json!([{"model": "m", "endpoint": url}])).await.is(201);
    harness.rollout("r").await;
    harness.shut_down().await;
    let harness = Harness::over(open(), quick(1), None).await;
    harness.chat("r", "1+1").await.is(200);
}
