//! Limits and their error responses.

use std::net::IpAddr;
use std::time::Duration;

use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::gateway::{Gateway, GatewayConfig};
use leyden_serve::store::{Limits, Store};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Harness, chat_body, chat_path, config, replying, send, until};

#[tokio::test]
async fn another_address_needs_a_key() {
    let store = Store::temporary(Limits::default()).expect("a temporary folder");
    let host: IpAddr = "0.0.0.0".parse().expect("an address");
    let open = GatewayConfig { host, ..config() };
    let refused = Gateway::new(open.clone(), store.clone(), None).await.err().expect("a refusal");
    assert!(refused.to_string().contains("without a key"), "{refused}");
    let short = GatewayConfig { key: Some("short".into()), ..open.clone() };
    assert!(Gateway::new(short, store.clone(), None).await.is_err());
    let keyed = GatewayConfig { key: Some("long enough".into()), ..open };
    assert!(Gateway::new(keyed, store, None).await.is_ok());
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let harness =
        Harness::new(GatewayConfig { max_body_bytes: 1000, ..config() }, replying("2")).await;
    harness.rollout("r").await;
    let long = "x".repeat(2000);
    let refused = harness.chat("r", &long).await.is(413).json();
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("1000 bytes")));
    harness.post("/api/rollouts", json!([{"input": long}])).await.is(413);
    // Without a Content-Length.
    let piece = || Ok::<_, std::io::Error>("y".repeat(600));
    let pieces = futures::stream::iter([piece(), piece(), piece()]);
    let request = harness.request(Method::POST, &chat_path("r"));
    send(request.body(reqwest::Body::wrap_stream(pieces))).await.is(413);
    harness.chat("r", "1+1").await.is(200);
}

/// Sends raw bytes and reads until the server closes.
async fn raw(harness: &Harness, bytes: &[u8]) -> String {
    let address = harness.url.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes).await.expect("a write");
    let mut text = Vec::new();
    // The server may reset the connection after its response.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn headers_have_a_limit() {
    let harness =
        Harness::new(GatewayConfig { max_header_bytes: 8192, ..config() }, replying("2")).await;
    let long =
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert!(raw(&harness, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..200).map(|i| format!("x{i}: y\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    assert!(raw(&harness, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&harness, b"what is this\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    harness.get("/healthz").await.is(200);
}

#[tokio::test]
async fn slow_senders_time_out() {
    let quick = Duration::from_millis(50);
    let config = GatewayConfig { header_timeout: quick, body_timeout: quick, ..config() };
    let harness = Harness::new(config, replying("2")).await;
    // Incomplete headers: the connection is closed.
    raw(&harness, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n").await;
    // Incomplete body: 408.
    let half = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-length: 100\r\n\r\n{";
    assert!(raw(&harness, half.as_bytes()).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let harness = Harness::new(GatewayConfig { max_calls: 1, ..config() }, holding).await;
    harness.rollout("r").await;
    let url = format!("{}{}", harness.url, chat_path("r"));
    let first = tokio::spawn(harness.client.post(&url).json(&chat_body("first")).send());
    let mut held = Vec::new();
    until(async || {
        held.extend(harness.model.held());
        !held.is_empty()
    })
    .await;
    let refused = harness.chat("r", "second").await.is(503);
    assert_eq!(refused.headers["retry-after"], "1");
    // Other requests are not calls.
    harness.get("/v1/models").await.is(200);
    drop(held);
    first.await.expect("a task").expect("an answer");
    until(async || {
        let metrics = harness.get("/metrics").await.is(200).text;
        metrics.contains("leyden_requests_in_flight 0")
    })
    .await;
}

#[tokio::test]
async fn a_silent_model_times_out() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let request_timeout = Duration::from_millis(20);
    let harness = Harness::new(GatewayConfig { request_timeout, ..config() }, holding).await;
    harness.rollout("r").await;
    harness.chat("r", "1+1").await.is(504);
    let held = harness.model.held();
    assert!(held[0].1.is_closed(), "its generation is cancelled");
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events, json!([]), "and not recorded");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json() {
    let harness = Harness::new(config(), replying("2")).await;
    for path in ["/", "/v2/chat", "/v1/chat", "/api/rollouts/r/unknown", "/proxy/rollout/r"] {
        let missing = harness.get(path).await.is(404).json();
        assert!(missing["error"]["message"].is_string() && missing["detail"].is_string());
    }
    let wrong = harness.get("/v1/chat/completions").await.is(405).json();
    assert!(wrong["error"]["message"].as_str().is_some_and(|m| m.contains("GET")));
    harness.delete("/proxy/pause").await.is(405);
    harness.get(&chat_path("r")).await.is(405);
}

#[tokio::test]
async fn ids_cannot_escape_their_path() {
    let harness = Harness::new(config(), replying("2")).await;
    for id in ["", "a/b", "..", "a b", "a\u{0}", "é", "x'; DROP TABLE rollouts; --"] {
        let body = json!([{"input": 1, "rollout_id": id}]);
        harness.post("/api/rollouts", body).await.is(422);
    }
    harness.rollout("r").await;
    let path = "/proxy/rollout/r/attempt/..%2F..%2Fetc/mode/train/openai/v1/chat/completions";
    harness.post(path, chat_body("1+1")).await.is(404);
    let event = json!({"event_type": "x"});
    harness.post("/api/rollouts/r/attempt/%00/events", event).await.is(404);
    let claim = json!({"worker": "../w"});
    harness.post("/api/workers/claim", claim).await.is(422);
}

/// A foreign web page in a browser on this machine.
#[tokio::test]
async fn foreign_pages_are_refused() {
    let harness = Harness::new(config(), replying("2")).await;
    let models = || harness.request(Method::GET, "/v1/models");
    send(models().header("origin", "https://evil.example")).await.is(403);
    send(models().header("host", "evil.example")).await.is(403);
    send(models().header("origin", "http://localhost:3000")).await.is(200);
}

#[tokio::test]
async fn metrics_count_calls_tokens_and_the_store() {
    let harness = Harness::new(config(), replying("The answer is 2.")).await;
    harness.rollout("r").await;
    harness.chat("r", "1+1").await.is(200);
    harness.chat("none", "1+1").await.is(404);
    // A call is acknowledged before the writer takes it off its queue.
    let mut text = String::new();
    until(async || {
        text = harness.get("/metrics").await.is(200).text;
        text.contains("leyden_store_queue 0\n")
    })
    .await;
    for line in [
        r#"leyden_requests_total{endpoint="chat/completions",status="200"} 1"#,
        r#"leyden_requests_total{endpoint="chat/completions",status="404"} 1"#,
        r#"leyden_request_seconds_count{endpoint="chat/completions"} 2"#,
        "leyden_requests_in_flight 0",
        "leyden_calls_recorded_total 1",
        "leyden_response_tokens_total 5",
        r#"leyden_rollouts{state="queuing"} 1"#,
        "leyden_store_queue 0",
        "leyden_paused 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_shutdown_drains() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let mut harness = Harness::new(config(), holding).await;
    harness.rollout("r").await;
    let url = format!("{}{}", harness.url, chat_path("r"));
    let call = tokio::spawn(harness.client.post(&url).json(&chat_body("1+1")).send());
    let mut held = Vec::new();
    until(async || {
        held.extend(harness.model.held());
        !held.is_empty()
    })
    .await;
    // A second call waits for the end of an update, which does not come.
    harness
        .gateway
        .gate()
        .close(leyden_serve::gateway::Closed { retry_after_seconds: 1, reason: None });
    let waiting = tokio::spawn(harness.client.post(&url).json(&chat_body("2+2")).send());
    until(async || harness.gateway.gate().now().waiting == 1).await;
    harness.begin_shutdown();
    let refused = waiting.await.expect("a task").expect("an answer");
    assert_eq!(refused.status(), 503);
    for (_, events) in held {
        let answer = leyden_serve::backend::Answer {
            content: "2".into(),
            tool_calls: Vec::new(),
            malformed_call: None,
            finish: leyden_core::FinishReason::Stop,
            stop_text: None,
            prompt_ids: vec![1],
            tokens: Vec::new(),
            cached_tokens: 0,
            policy_version: 0,
            constrained: false,
        };
        let _ = events.send(leyden_serve::backend::Event::Finished(Box::new(answer)));
    }
    let answered = call.await.expect("a task").expect("an answer");
    assert_eq!(answered.status(), 200);
    let store = harness.store.clone();
    harness.shut_down().await;
    let closed = store.patch("r", Default::default()).await;
    assert!(matches!(closed, Err(leyden_serve::store::StoreError::Closed)), "{closed:?}");
}

#[tokio::test]
async fn a_disconnected_call_is_not_recorded() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let harness = Harness::new(config(), holding).await;
    harness.rollout("r").await;
    let call = harness.client.post(format!("{}{}", harness.url, chat_path("r")));
    let call = tokio::spawn(call.json(&chat_body("1+1")).send());
    let mut held = Vec::new();
    until(async || {
        held.extend(harness.model.held());
        !held.is_empty()
    })
    .await;
    call.abort();
    held[0].1.closed().await;
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events, json!([]));
    let text = harness.get("/metrics").await.is(200).text;
    assert!(text.contains(r#"status="499"} 1"#), "{text}");
}
