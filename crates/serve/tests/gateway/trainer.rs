//! A trainer in the server's process.

use std::sync::Arc;

use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::gateway::{Ended, Registered, RolloutError, RolloutEvent, RolloutSpec};
use leyden_serve::store::{Limits, RolloutState, Store};
use serde_json::{Value, json};

use super::harness::{Got, Harness, chat_body, config, replying, send};

fn spec() -> RolloutSpec {
    RolloutSpec { input: json!({"question": "1+1"}), ..RolloutSpec::default() }
}

async fn post(harness: &Harness, url: &str, body: Value) -> Got {
    send(harness.client.post(url).json(&body)).await
}

async fn chat(harness: &Harness, base: &str) -> Got {
    post(harness, &format!("{base}/chat/completions"), chat_body("1+1")).await
}

async fn report(harness: &Harness, rollout: &Registered, event_type: &str, data: Value) -> Got {
    let body = json!({"event_type": event_type, "data": data});
    post(harness, &rollout.addresses().events, body).await
}

#[tokio::test]
async fn every_rollout_has_its_own_model() {
    let harness = Harness::new(config(), replying("the server's own")).await;
    let rollouts = harness.gateway.rollouts();
    let mut all = Vec::new();
    for i in 0..5 {
        let model = Arc::new(replying(&format!("model {i}")));
        all.push(rollouts.register(spec(), model).await.expect("a rollout"));
    }
    assert_eq!(rollouts.count(), 5);
    for (i, rollout) in all.iter().enumerate() {
        let answer = chat(&harness, &rollout.addresses().openai).await.is(200).json();
        assert_eq!(answer["choices"][0]["message"]["content"], format!("model {i}"));
        assert_eq!(rollout.addresses().key, "none");
    }
    let message =
        json!({"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "1"}]});
    let url = format!("{}/v1/messages", all[0].addresses().anthropic);
    let answer = post(&harness, &url, message).await.is(200).json();
    assert_eq!(answer["content"][0]["text"], "model 0");
}

#[tokio::test]
async fn reports_arrive_in_order_once_they_are_durable() {
    let harness = Harness::new(config(), replying("2")).await;
    let model = Arc::new(replying("2"));
    let mut rollout = harness.gateway.rollouts().register(spec(), model).await.expect("a rollout");
    report(&harness, &rollout, "signal", json!({"kind": "tool_error", "detail": "no table"}))
        .await
        .is(200);
    report(&harness, &rollout, "answer", json!({"value": "2"})).await.is(200);
    report(&harness, &rollout, "answer", json!({"value": 2.5})).await.is(200);
    report(&harness, &rollout, "reward", json!({"value": 1})).await.is(200);
    report(&harness, &rollout, "process_reward", json!({"value": 0.5})).await.is(200);
    report(&harness, &rollout, "process_reward", json!({"value": -1, "call": 2})).await.is(200);
    report(&harness, &rollout, "note", json!({"a": 1})).await.is(200);
    let mut received = Vec::new();
    while let Some(happening) = rollout.try_next() {
        received.push(happening);
    }
    assert_eq!(
        received,
        [
            RolloutEvent::Signal { kind: "tool_error".into(), detail: "no table".into() },
            RolloutEvent::Answer("2".into()),
            RolloutEvent::Answer("2.5".into()),
            RolloutEvent::Reward(1.0),
            RolloutEvent::ProcessReward { call: None, value: 0.5 },
            RolloutEvent::ProcessReward { call: Some(2), value: -1.0 },
            RolloutEvent::Other { event_type: "note".into(), data: json!({"a": 1}) },
        ]
    );
    let id = rollout.id().to_owned();
    rollout.finish(Ended::Succeeded).await.expect("an end");
    let stored = harness.store.rollout(&id).await.expect("a store").expect("a rollout");
    assert_eq!(stored.status.state, RolloutState::Succeeded);
}

/// v1 stores any reward, and its trainer then drops the rollout or treats `true` as 1.
#[tokio::test]
async fn invalid_reports_are_refused() {
    let harness = Harness::new(config(), replying("2")).await;
    let model = Arc::new(replying("2"));
    let mut rollout = harness.gateway.rollouts().register(spec(), model).await.expect("a rollout");
    for value in [json!(true), json!("1"), json!(null), json!([1])] {
        let got = report(&harness, &rollout, "reward", json!({"value": value})).await.is(422);
        assert!(got.text.contains("finite number"), "{}", got.text);
    }
    report(&harness, &rollout, "reward", json!({})).await.is(422);
    let got = report(&harness, &rollout, "process_reward", json!({"value": "high"})).await.is(422);
    assert!(got.text.contains("process reward must be a finite number"), "{}", got.text);
    for call in [json!(-1), json!("first"), json!(0.5)] {
        let body = json!({"value": 1.0, "call": call});
        let got = report(&harness, &rollout, "process_reward", body).await.is(422);
        assert!(got.text.contains("data.call"), "{}", got.text);
    }
    report(&harness, &rollout, "answer", json!({"answer": "2"})).await.is(422);
    report(&harness, &rollout, "signal", json!({"kind": ""})).await.is(422);
    assert_eq!(rollout.try_next(), None);
}

#[tokio::test]
async fn a_finished_rollout_refuses_calls_and_stores_events() {
    let harness = Harness::new(config(), replying("the server's own")).await;
    let model = Arc::new(replying("2"));
    let rollout = harness.gateway.rollouts().register(spec(), model).await.expect("a rollout");
    let (id, addresses) = (rollout.id().to_owned(), rollout.addresses());
    chat(&harness, &addresses.openai).await.is(200);
    rollout.finish(Ended::Failed("the agent hung".into())).await.expect("an end");
    let refused = chat(&harness, &addresses.openai).await.is(410).json();
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("is over")));
    let late = json!({"event_type": "reward", "data": {"value": 1}});
    post(&harness, &addresses.events, late).await.is(200);
    let stored = harness.store.rollout(&id).await.expect("a store").expect("a rollout");
    assert_eq!(stored.status.error_message.as_deref(), Some("the agent hung"));
    assert_eq!(harness.store.calls(&id).await.expect("calls").len(), 1, "its calls stay");
}

#[tokio::test]
async fn a_retry_is_another_attempt() {
    let harness = Harness::new(config(), replying("2")).await;
    let model = Arc::new(replying("2"));
    let mut rollout = harness.gateway.rollouts().register(spec(), model).await.expect("a rollout");
    let before = rollout.addresses();
    report(&harness, &rollout, "reward", json!({"value": 0})).await.is(200);
    rollout.retry().await.expect("an attempt");
    assert_eq!(rollout.try_next(), None, "reports of the dead agent are discarded");
    assert_ne!(rollout.addresses(), before);
    let refused = chat(&harness, &before.openai).await.is(410).json();
    assert!(refused["error"]["message"].as_str().is_some_and(|m| m.contains("replaced")));
    let late = json!({"event_type": "reward", "data": {"value": 5}});
    post(&harness, &before.events, late).await.is(200);
    assert_eq!(rollout.try_next(), None, "and later ones are not reported");
    chat(&harness, &rollout.addresses().openai).await.is(200);
    report(&harness, &rollout, "reward", json!({"value": 1})).await.is(200);
    assert_eq!(rollout.next().await, Some(RolloutEvent::Reward(1.0)));
    let events = harness.store.events(rollout.id(), Some("reward")).await.expect("events");
    assert_eq!(events.len(), 1);
}

#[tokio::test]
async fn ids_cannot_be_reused() {
    let harness = Harness::new(config(), replying("2")).await;
    let rollouts = harness.gateway.rollouts();
    let named = || RolloutSpec { id: Some("mine".into()), ..spec() };
    let first = rollouts.register(named(), Arc::new(replying("1"))).await.expect("a rollout");
    let second = rollouts.register(named(), Arc::new(replying("2"))).await;
    assert!(matches!(second, Err(RolloutError::Taken(_))));
    first.finish(Ended::Succeeded).await.expect("an end");
    let third = rollouts.register(named(), Arc::new(replying("3"))).await;
    assert!(matches!(third, Err(RolloutError::Taken(_))));
    let stored = harness.store.rollout("mine").await.expect("a store").expect("a rollout");
    assert_eq!(stored.status.state, RolloutState::Succeeded);
    let bad = RolloutSpec { id: Some("a/b".into()), ..spec() };
    let bad = rollouts.register(bad, Arc::new(replying("4"))).await;
    assert!(matches!(bad, Err(RolloutError::InvalidId(_))));
}

#[tokio::test]
async fn a_dropped_rollout_fails() {
    let harness = Harness::new(config(), replying("2")).await;
    let model = Arc::new(replying("2"));
    let rollout = harness.gateway.rollouts().register(spec(), model).await.expect("a rollout");
    let id = rollout.id().to_owned();
    drop(rollout);
    // Queued in the writer after the drop.
    harness.store.requeue_expired().await.expect("a store");
    let stored = harness.store.rollout(&id).await.expect("a store").expect("a rollout");
    assert_eq!(stored.status.state, RolloutState::Failed);
    assert_eq!(harness.gateway.rollouts().count(), 0);
}

#[tokio::test]
async fn the_rollouts_of_a_dead_trainer_fail_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    let harness = Harness::over(store, config(), None).await;
    let model = Arc::new(replying("2"));
    let rollout = harness.gateway.rollouts().register(spec(), model).await.expect("a rollout");
    let (id, addresses) = (rollout.id().to_owned(), rollout.addresses());
    chat(&harness, &addresses.openai).await.is(200);
    // Leaves it running, as after a kill.
    std::mem::forget(rollout);
    harness.shut_down().await;
    let store = Store::open(folder.path(), Limits::default()).expect("a store");
    let harness = Harness::over(store, config(), Some(replying("another"))).await;
    let stored = harness.store.rollout(&id).await.expect("a store").expect("a rollout");
    assert_eq!(stored.status.state, RolloutState::Failed);
    let path = addresses.openai.split_once("/proxy").expect("a path").1;
    chat(&harness, &format!("{}/proxy{path}", harness.url)).await.is(410);
    assert_eq!(harness.store.calls(&id).await.expect("calls").len(), 1);
}

#[tokio::test]
async fn a_backend_that_vanishes_is_an_error_of_its_call_only() {
    let harness = Harness::new(config(), replying("2")).await;
    let vanishing = Arc::new(Scripted::new("stub", |_| Reply::Vanish));
    let rollout = harness.gateway.rollouts().register(spec(), vanishing).await.expect("a rollout");
    let got = chat(&harness, &rollout.addresses().openai).await;
    assert!(got.status.is_server_error(), "{got:?}");
    harness.rollout("other").await;
    harness.chat("other", "1+1").await.is(200);
}
