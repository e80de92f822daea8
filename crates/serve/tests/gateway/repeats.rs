//! Retried requests.

use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::store::{FILE, Limits, Store};
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{Got, Harness, chat_body, chat_path, config, send, until};

/// Returns a different number each time, so that a replayed answer can be detected.
fn counting() -> Scripted {
    let count = std::sync::atomic::AtomicU32::new(0);
    Scripted::new("stub", move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Reply::text(format!("answer number {number}"))
    })
}

async fn call(harness: &Harness, body: &Value, headers: &[(&str, &str)]) -> Got {
    let mut request = harness.request(Method::POST, &chat_path("r")).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}

async fn recorded(harness: &Harness) -> usize {
    harness.store.calls("r").await.expect("calls").len()
}

#[tokio::test]
async fn requests_with_the_same_key_are_one_call() {
    let harness = Harness::new(config(), counting()).await;
    harness.rollout("r").await;
    let body = chat_body("1+1");
    let first = call(&harness, &body, &[("idempotency-key", "k1")]).await.is(200);
    let again = call(&harness, &body, &[("idempotency-key", "k1")]).await.is(200);
    assert_eq!(first.json(), again.json());
    assert_eq!(again.headers["x-leyden-repeated"], "true");
    assert_eq!(recorded(&harness).await, 1);
    let other = call(&harness, &body, &[("idempotency-key", "k2")]).await.is(200);
    assert_ne!(first.json()["choices"], other.json()["choices"]);
    call(&harness, &chat_body("2+2"), &[("idempotency-key", "k1")]).await.is(409);
}

#[tokio::test]
async fn a_repeated_stream_streams_the_same() {
    let harness = Harness::new(config(), counting()).await;
    harness.rollout("r").await;
    let mut body = chat_body("1+1");
    body["stream"] = json!(true);
    let content = |got: &Got| -> String {
        let chunks = got.text.split("\n\n").filter_map(|line| line.strip_prefix("data: "));
        chunks
            .filter_map(|chunk| serde_json::from_str::<Value>(chunk).ok())
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    };
    let first = call(&harness, &body, &[("idempotency-key", "k")]).await.is(200);
    let again = call(&harness, &body, &[("idempotency-key", "k")]).await.is(200);
    assert_eq!(content(&first), "answer number 0");
    assert_eq!(content(&again), content(&first));
    assert_eq!(recorded(&harness).await, 1);
}

#[tokio::test]
async fn equal_requests_without_marks_are_separate_calls() {
    let harness = Harness::new(config(), counting()).await;
    harness.rollout("r").await;
    let body = chat_body("1+1");
    let first = call(&harness, &body, &[("x-stainless-retry-count", "0")]).await.is(200).json();
    let second = call(&harness, &body, &[]).await.is(200).json();
    assert_ne!(first["choices"], second["choices"]);
    // The first answer was received, so this is not its retry.
    let third = call(&harness, &body, &[("x-stainless-retry-count", "1")]).await.is(200).json();
    assert_eq!(third["choices"][0]["message"]["content"], "answer number 2");
    assert_eq!(recorded(&harness).await, 3);
}

#[tokio::test]
async fn a_retry_waits_for_the_first_request() {
    let harness = Harness::new(config(), counting()).await;
    harness.rollout("r").await;
    harness
        .gateway
        .gate()
        .close(leyden_serve::gateway::Closed { retry_after_seconds: 1, reason: None });
    let url = format!("{}{}", harness.url, chat_path("r"));
    let keyed = || harness.client.post(&url).header("idempotency-key", "k").json(&chat_body("1+1"));
    let first = tokio::spawn(keyed().send());
    until(async || harness.gateway.gate().now().waiting == 1).await;
    let second = tokio::spawn(keyed().send());
    let third = tokio::spawn(keyed().send());
    harness.gateway.gate().open();
    let mut answers = Vec::new();
    for call in [first, second, third] {
        let response = call.await.expect("a task").expect("an answer");
        answers.push(response.json::<Value>().await.expect("JSON"));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(recorded(&harness).await, 1);
}

#[tokio::test]
async fn a_failure_is_not_replayed() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let model = Scripted::new("stub", move |_| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::Fail(leyden_serve::backend::Failure::Internal("out of memory".into())),
            _ => Reply::text("2"),
        }
    });
    let harness = Harness::new(config(), model).await;
    harness.rollout("r").await;
    let body = chat_body("1+1");
    call(&harness, &body, &[("idempotency-key", "k")]).await.is(500);
    call(&harness, &body, &[("idempotency-key", "k")]).await.is(200);
}

/// The server is killed between the record and the response: its client retries, and the next
/// process finds the call, also if the system's clock was set back meanwhile.
#[tokio::test]
async fn an_earlier_process_s_record_is_replayed_once() {
    for clock_set_back in [0.0, 7200.0] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Limits::default()).expect("a store");
        let harness = Harness::over(store, config(), Some(counting())).await;
        harness.rollout("r").await;
        let body = chat_body("1+1");
        let first = call(&harness, &body, &[]).await.is(200).json();
        harness.shut_down().await;
        let db = rusqlite::Connection::open(folder.path().join(FILE)).expect("a file");
        let set = "UPDATE events SET timestamp = timestamp + ?1";
        db.execute(set, [clock_set_back]).expect("a store");
        drop(db);
        let store = Store::open(folder.path(), Limits::default()).expect("a store");
        let harness = Harness::over(store, config(), Some(counting())).await;
        let retry = [("x-stainless-retry-count", "2")];
        let again = call(&harness, &body, &retry).await.is(200).json();
        assert_eq!(again, first);
        let third = call(&harness, &body, &retry).await.is(200).json();
        assert_ne!(third["id"], first["id"]);
        assert_eq!(recorded(&harness).await, 2);
    }
}

#[tokio::test]
async fn events_with_the_same_key_are_stored_once() {
    let harness = Harness::new(config(), counting()).await;
    harness.rollout("r").await;
    let event = json!({"event_type": "reward", "data": {"value": 1}});
    let post = async |key: &str| {
        let request = harness.request(Method::POST, "/api/rollouts/r/attempt/0/events");
        send(request.header("idempotency-key", key).json(&event)).await.is(200).json()
    };
    let first = post("a").await;
    assert_eq!(post("a").await["timestamp"], first["timestamp"]);
    post("b").await;
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events.as_array().map(Vec::len), Some(2));
}
