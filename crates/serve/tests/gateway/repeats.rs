//! Requests that are sent again.

use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::store::{Limits, Store};
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{Got, World, chat_body, chat_path, config, send, until};

/// Says another number each time, so that a repetition shows.
fn counting() -> Scripted {
    let count = std::sync::atomic::AtomicU32::new(0);
    Scripted::new("stub", move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Reply::text(format!("answer number {number}"))
    })
}

async fn call(world: &World, body: &Value, headers: &[(&str, &str)]) -> Got {
    let mut request = world.request(Method::POST, &chat_path("r")).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}

async fn recorded(world: &World) -> usize {
    world.store.calls("r").await.expect("calls").len()
}

#[tokio::test]
async fn a_key_makes_two_requests_one() {
    let world = World::new(config(), counting()).await;
    world.rollout("r").await;
    let body = chat_body("1+1");
    let first = call(&world, &body, &[("idempotency-key", "k1")]).await.is(200);
    let again = call(&world, &body, &[("idempotency-key", "k1")]).await.is(200);
    assert_eq!(first.json(), again.json());
    assert_eq!(again.headers["x-leyden-repeated"], "true");
    assert_eq!(recorded(&world).await, 1);
    let other = call(&world, &body, &[("idempotency-key", "k2")]).await.is(200);
    assert_ne!(first.json()["choices"], other.json()["choices"]);
    call(&world, &chat_body("2+2"), &[("idempotency-key", "k1")]).await.is(409);
}

#[tokio::test]
async fn a_repeated_stream_streams_the_same() {
    let world = World::new(config(), counting()).await;
    world.rollout("r").await;
    let mut body = chat_body("1+1");
    body["stream"] = json!(true);
    let content = |got: &Got| -> String {
        let chunks = got.text.split("\n\n").filter_map(|line| line.strip_prefix("data: "));
        chunks
            .filter_map(|chunk| serde_json::from_str::<Value>(chunk).ok())
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    };
    let first = call(&world, &body, &[("idempotency-key", "k")]).await.is(200);
    let again = call(&world, &body, &[("idempotency-key", "k")]).await.is(200);
    assert_eq!(content(&first), "answer number 0");
    assert_eq!(content(&again), content(&first));
    assert_eq!(recorded(&world).await, 1);
}

#[tokio::test]
async fn asking_the_same_twice_is_no_repetition() {
    let world = World::new(config(), counting()).await;
    world.rollout("r").await;
    let body = chat_body("1+1");
    let first = call(&world, &body, &[("x-stainless-retry-count", "0")]).await.is(200).json();
    let second = call(&world, &body, &[]).await.is(200).json();
    assert_ne!(first["choices"], second["choices"]);
    // The first answer was received: this cannot be its repetition.
    let third = call(&world, &body, &[("x-stainless-retry-count", "1")]).await.is(200).json();
    assert_eq!(third["choices"][0]["message"]["content"], "answer number 2");
    assert_eq!(recorded(&world).await, 3);
}

#[tokio::test]
async fn a_repetition_waits_for_the_first_request() {
    let world = World::new(config(), counting()).await;
    world.rollout("r").await;
    world
        .gateway
        .gate()
        .close(leyden_serve::gateway::Closed { retry_after_seconds: 1, reason: None });
    let url = format!("{}{}", world.url, chat_path("r"));
    let keyed = || world.client.post(&url).header("idempotency-key", "k").json(&chat_body("1+1"));
    let first = tokio::spawn(keyed().send());
    until(async || world.gateway.gate().now().waiting == 1).await;
    let second = tokio::spawn(keyed().send());
    let third = tokio::spawn(keyed().send());
    world.gateway.gate().open();
    let mut answers = Vec::new();
    for call in [first, second, third] {
        let response = call.await.expect("a task").expect("an answer");
        answers.push(response.json::<Value>().await.expect("JSON"));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(recorded(&world).await, 1);
}

#[tokio::test]
async fn a_failure_is_not_repeated() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let model = Scripted::new("stub", move |_| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Reply::Fail(leyden_serve::backend::Failure::Internal("out of memory".into())),
            _ => Reply::text("2"),
        }
    });
    let world = World::new(config(), model).await;
    world.rollout("r").await;
    let body = chat_body("1+1");
    call(&world, &body, &[("idempotency-key", "k")]).await.is(500);
    call(&world, &body, &[("idempotency-key", "k")]).await.is(200);
}

/// A server that was killed between the record and the answer: its client tries again, and the
/// next process finds the call.
#[tokio::test]
async fn what_an_earlier_process_recorded_is_given_out_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    let world = World::over(store, config(), Some(counting())).await;
    world.rollout("r").await;
    let body = chat_body("1+1");
    let first = call(&world, &body, &[]).await.is(200).json();
    world.shut_down().await;
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    let world = World::over(store, config(), Some(counting())).await;
    let retry = [("x-stainless-retry-count", "2")];
    let again = call(&world, &body, &retry).await.is(200).json();
    assert_eq!(again, first);
    let third = call(&world, &body, &retry).await.is(200).json();
    assert_ne!(third["id"], first["id"]);
    assert_eq!(recorded(&world).await, 2);
}

#[tokio::test]
async fn an_event_with_a_key_is_one_event() {
    let world = World::new(config(), counting()).await;
    world.rollout("r").await;
    let event = json!({"event_type": "reward", "data": {"value": 1}});
    let post = async |key: &str| {
        let request = world.request(Method::POST, "/api/rollouts/r/attempt/0/events");
        send(request.header("idempotency-key", key).json(&event)).await.is(200).json()
    };
    let first = post("a").await;
    assert_eq!(post("a").await["timestamp"], first["timestamp"]);
    post("b").await;
    let events = world.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events.as_array().map(Vec::len), Some(2));
}
