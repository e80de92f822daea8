//! What a stranger may not do, and how he hears of it.

use std::net::IpAddr;
use std::time::Duration;

use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::gateway::{Gateway, GatewayConfig};
use leyden_serve::store::{Limits, Store};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{World, chat_body, chat_path, config, says, send, until};

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
    let world = World::new(GatewayConfig { max_body_bytes: 1000, ..config() }, says("2")).await;
    world.rollout("r").await;
    let long = "x".repeat(2000);
    let refused = world.chat("r", &long).await.is(413).json();
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("1000 bytes")));
    world.post("/api/rollouts", json!([{"input": long}])).await.is(413);
    // Without a length that is known beforehand.
    let piece = || Ok::<_, std::io::Error>("y".repeat(600));
    let pieces = futures::stream::iter([piece(), piece(), piece()]);
    let request = world.request(Method::POST, &chat_path("r"));
    send(request.body(reqwest::Body::wrap_stream(pieces))).await.is(413);
    world.chat("r", "1+1").await.is(200);
}

/// Sends bytes as they are and reads until the server closes.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let address = world.url.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes).await.expect("room");
    let mut text = Vec::new();
    // The server may reset a connection that it has nothing more to say to.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn headers_have_a_limit() {
    let world = World::new(GatewayConfig { max_header_bytes: 8192, ..config() }, says("2")).await;
    let long =
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert!(raw(&world, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..200).map(|i| format!("x{i}: y\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    assert!(raw(&world, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&world, b"what is this\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    world.get("/healthz").await.is(200);
}

#[tokio::test]
async fn slow_senders_are_not_waited_for() {
    let quick = Duration::from_millis(50);
    let config = GatewayConfig { header_timeout: quick, body_timeout: quick, ..config() };
    let world = World::new(config, says("2")).await;
    // Half a head: the connection is closed.
    raw(&world, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n").await;
    // Half a body: 408.
    let half = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-length: 100\r\n\r\n{";
    assert!(raw(&world, half.as_bytes()).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn calls_beyond_the_room_are_refused() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let world = World::new(GatewayConfig { max_calls: 1, ..config() }, holding).await;
    world.rollout("r").await;
    let url = format!("{}{}", world.url, chat_path("r"));
    let first = tokio::spawn(world.client.post(&url).json(&chat_body("first")).send());
    let mut held = Vec::new();
    until(async || {
        held.extend(world.model.held());
        !held.is_empty()
    })
    .await;
    let refused = world.chat("r", "second").await.is(503);
    assert_eq!(refused.headers["retry-after"], "1");
    // Other requests are not calls.
    world.get("/v1/models").await.is(200);
    drop(held);
    first.await.expect("a task").expect("an answer");
    until(async || {
        let metrics = world.get("/metrics").await.is(200).text;
        metrics.contains("leyden_requests_in_flight 0")
    })
    .await;
}

#[tokio::test]
async fn a_model_that_says_nothing_is_given_up() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let request_timeout = Duration::from_millis(20);
    let world = World::new(GatewayConfig { request_timeout, ..config() }, holding).await;
    world.rollout("r").await;
    world.chat("r", "1+1").await.is(504);
    let held = world.model.held();
    assert!(held[0].1.is_closed(), "its generation is cancelled");
    let events = world.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events, json!([]), "and not recorded");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json() {
    let world = World::new(config(), says("2")).await;
    for path in ["/", "/v2/chat", "/v1/chat", "/api/rollouts/r/unknown", "/proxy/rollout/r"] {
        let missing = world.get(path).await.is(404).json();
        assert!(missing["error"]["message"].is_string() && missing["detail"].is_string());
    }
    let wrong = world.get("/v1/chat/completions").await.is(405).json();
    assert!(wrong["error"]["message"].as_str().is_some_and(|m| m.contains("GET")));
    world.delete("/proxy/pause").await.is(405);
    world.get(&chat_path("r")).await.is(405);
}

#[tokio::test]
async fn ids_cannot_lead_anywhere() {
    let world = World::new(config(), says("2")).await;
    for id in ["", "a/b", "..", "a b", "a\u{0}", "é", "x'; DROP TABLE rollouts; --"] {
        let body = json!([{"input": 1, "rollout_id": id}]);
        world.post("/api/rollouts", body).await.is(422);
    }
    world.rollout("r").await;
    let path = "/proxy/rollout/r/attempt/..%2F..%2Fetc/mode/train/openai/v1/chat/completions";
    world.post(path, chat_body("1+1")).await.is(404);
    let event = json!({"event_type": "x"});
    world.post("/api/rollouts/r/attempt/%00/events", event).await.is(404);
    let claim = json!({"worker": "../w"});
    world.post("/api/workers/claim", claim).await.is(422);
}

/// A page elsewhere, in a browser on this machine.
#[tokio::test]
async fn pages_of_others_are_refused() {
    let world = World::new(config(), says("2")).await;
    let models = || world.request(Method::GET, "/v1/models");
    send(models().header("origin", "https://evil.example")).await.is(403);
    send(models().header("host", "evil.example")).await.is(403);
    send(models().header("origin", "http://localhost:3000")).await.is(200);
}

#[tokio::test]
async fn metrics_count_calls_tokens_and_the_store() {
    let world = World::new(config(), says("The answer is 2.")).await;
    world.rollout("r").await;
    world.chat("r", "1+1").await.is(200);
    world.chat("none", "1+1").await.is(404);
    // A call is acknowledged before the writer takes it off its queue.
    let mut text = String::new();
    until(async || {
        text = world.get("/metrics").await.is(200).text;
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
    let mut world = World::new(config(), holding).await;
    world.rollout("r").await;
    let url = format!("{}{}", world.url, chat_path("r"));
    let call = tokio::spawn(world.client.post(&url).json(&chat_body("1+1")).send());
    let mut held = Vec::new();
    until(async || {
        held.extend(world.model.held());
        !held.is_empty()
    })
    .await;
    // A second call waits for the end of an update, and will not see it.
    world
        .gateway
        .gate()
        .close(leyden_serve::gateway::Closed { retry_after_seconds: 1, reason: None });
    let waiting = tokio::spawn(world.client.post(&url).json(&chat_body("2+2")).send());
    until(async || world.gateway.gate().now().waiting == 1).await;
    world.begin_shutdown();
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
    let store = world.store.clone();
    world.shut_down().await;
    let closed = store.patch("r", Default::default()).await;
    assert!(matches!(closed, Err(leyden_serve::store::StoreError::Closed)), "{closed:?}");
}

#[tokio::test]
async fn an_agent_that_hangs_up_leaves_no_call() {
    let holding = Scripted::new("stub", |_| Reply::Hold);
    let world = World::new(config(), holding).await;
    world.rollout("r").await;
    let call = world.client.post(format!("{}{}", world.url, chat_path("r")));
    let call = tokio::spawn(call.json(&chat_body("1+1")).send());
    let mut held = Vec::new();
    until(async || {
        held.extend(world.model.held());
        !held.is_empty()
    })
    .await;
    call.abort();
    held[0].1.closed().await;
    let events = world.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events, json!([]));
    let text = world.get("/metrics").await.is(200).text;
    assert!(text.contains(r#"status="499"} 1"#), "{text}");
}
