//! Remote workers.

use std::sync::Arc;

use leyden_serve::gateway::{Ended, RolloutEvent, RolloutSpec};
use leyden_serve::store::RolloutState;
use serde_json::{Value, json};

use super::harness::{Harness, chat_body, config, replying, send};

async fn claim(harness: &Harness, worker: &str, count: usize, seconds: f64) -> Vec<Value> {
    let body = json!({"worker": worker, "count": count, "lease_seconds": seconds});
    let got = harness.post("/api/workers/claim", body).await.is(200).json();
    got["claims"].as_array().expect("claims").clone()
}

#[tokio::test]
async fn claims_are_disjoint_and_oldest_first() {
    let harness = Harness::new(config(), replying("2")).await;
    for i in 0..5 {
        harness.rollout(&format!("r{i}")).await;
    }
    let ids = |claims: &[Value]| -> Vec<String> {
        let id = |claim: &Value| claim["rollout"]["rollout_id"].as_str().map(str::to_owned);
        claims.iter().filter_map(id).collect()
    };
    let first = claim(&harness, "w1", 2, 60.0).await;
    assert_eq!(ids(&first), ["r0", "r1"]);
    assert_eq!(first[0]["attempt_id"], "0");
    assert_eq!(first[0]["rollout"]["status"]["state"], "running");
    let base = first[0]["addresses"]["openai_base_url"].as_str().expect("a URL");
    send(harness.client.post(format!("{base}/chat/completions")).json(&chat_body("1+1")))
        .await
        .is(200);
    assert_eq!(ids(&claim(&harness, "w2", 9, 60.0).await), ["r2", "r3", "r4"]);
    assert_eq!(claim(&harness, "w3", 1, 60.0).await.len(), 0);
    for body in [json!({"worker": ""}), json!({"worker": "w", "lease_seconds": 0}), json!({})] {
        harness.post("/api/workers/claim", body).await.is(422);
    }
}

#[tokio::test]
async fn a_silent_worker_loses_its_rollout_to_a_new_attempt() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.rollout("r").await;
    claim(&harness, "w1", 1, 1.0).await;
    let beat = async |worker: &str, attempt: &str, seconds: f64| {
        let lease = json!({"rollout_id": "r", "attempt_id": attempt});
        let body = json!({"worker": worker, "leases": [lease], "lease_seconds": seconds});
        let got = harness.post("/api/workers/heartbeat", body).await.is(200).json();
        got["leases"][0].clone()
    };
    assert!(beat("w1", "0", 60.0).await["lease_until"].is_number());
    assert!(beat("w2", "0", 60.0).await["lost"].as_str().is_some_and(|l| l.contains("another")));
    // The next heartbeat's lease lasts one second and is not renewed.
    assert!(beat("w1", "0", 1.0).await["lease_until"].is_number());
    super::harness::until(async || {
        harness.gateway.requeue_expired().await.expect("a store") == 1
            || claim(&harness, "w2", 1, 60.0).await.first().is_some_and(|c| c["attempt_id"] == "1")
    })
    .await;
    let again = claim(&harness, "w2", 1, 60.0).await;
    if let Some(again) = again.first() {
        assert_eq!(again["attempt_id"], "1");
    }
    assert!(beat("w1", "0", 60.0).await["lost"].is_string());
    // Later reports of the first worker are stored and ignored.
    for (attempt, value) in [("0", 0), ("1", 1)] {
        let event = json!({"event_type": "reward", "data": {"value": value}});
        harness.post(&format!("/api/rollouts/r/attempt/{attempt}/events"), event).await.is(200);
    }
    let events = harness.get("/api/rollouts/r/events").await.is(200).json();
    assert_eq!(events.as_array().map(Vec::len), Some(1));
    assert_eq!(events[0]["data"]["value"], 1);
    let finish = |worker: &str, attempt: &str| json!({"worker": worker, "rollout_id": "r", "attempt_id": attempt, "state": "succeeded"});
    harness.post("/api/workers/finish", finish("w1", "0")).await.is(409);
    harness.post("/api/workers/finish", finish("w2", "1")).await.is(200);
    harness.post("/api/workers/finish", finish("w2", "1")).await.is(409);
    let rollout = harness.get("/api/rollouts/r").await.is(200).json();
    assert_eq!(rollout["rollout"]["status"]["state"], "succeeded");
}

#[tokio::test]
async fn a_trainer_is_notified_of_claims_and_decides_the_end() {
    let harness = Harness::new(config(), replying("2")).await;
    let spec = RolloutSpec { input: json!("task"), remote: true, ..RolloutSpec::default() };
    let model = Arc::new(replying("from the trainer"));
    let mut rollout = harness.gateway.rollouts().register(spec, model).await.expect("a rollout");
    let claimed = claim(&harness, "w1", 1, 60.0).await.remove(0);
    assert_eq!(rollout.next().await, Some(RolloutEvent::Claimed { worker: "w1".into() }));
    assert_eq!(claimed["rollout"]["input"], "task");
    let base = claimed["addresses"]["openai_base_url"].as_str().expect("a URL");
    assert_eq!(base, rollout.addresses().openai);
    let answer =
        send(harness.client.post(format!("{base}/chat/completions")).json(&chat_body("1")));
    let answer = answer.await.is(200).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "from the trainer");
    let finish = |worker: &str, attempt: &str, state: &str| {
        json!({"worker": worker, "rollout_id": rollout.id(), "attempt_id": attempt,
            "state": state, "error_message": "no money"})
    };
    let failed = finish("w1", "0", "failed");
    harness.post("/api/workers/finish", failed).await.is(200);
    let succeeded = finish("w2", "1", "succeeded");
    let ended = Ended::Failed("no money".into());
    assert_eq!(rollout.next().await, Some(RolloutEvent::Ended(ended)));
    // The trainer retries.
    rollout.retry().await.expect("an attempt");
    let again = claim(&harness, "w2", 1, 60.0).await.remove(0);
    assert_eq!(again["attempt_id"], "1");
    assert_eq!(rollout.next().await, Some(RolloutEvent::Claimed { worker: "w2".into() }));
    harness.post("/api/workers/finish", succeeded).await.is(200);
    assert_eq!(rollout.next().await, Some(RolloutEvent::Ended(Ended::Succeeded)));
    let id = rollout.id().to_owned();
    rollout.finish(Ended::Succeeded).await.expect("an end");
    let stored = harness.store.rollout(&id).await.expect("a store").expect("a rollout");
    assert_eq!(stored.status.state, RolloutState::Succeeded);
}
