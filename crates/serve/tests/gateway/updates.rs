//! Calls during a weight update.

use std::time::Duration;

use leyden_serve::gateway::{Closed, GatewayConfig};
use serde_json::json;

use super::harness::{Harness, chat_body, chat_path, config, replying, until};

fn closed() -> Closed {
    Closed { retry_after_seconds: 7, reason: Some("step 3".into()) }
}

#[tokio::test]
async fn a_call_waits_for_the_end_of_an_update() {
    let harness = Harness::new(config(), replying("2")).await;
    harness.rollout("r").await;
    harness.gateway.gate().close(closed());
    let url = format!("{}{}", harness.url, chat_path("r"));
    let calls: Vec<_> = (0..20)
        .map(|i| {
            let body = chat_body(&format!("{i}+{i}"));
            tokio::spawn(harness.client.post(&url).json(&body).send())
        })
        .collect();
    until(async || harness.gateway.gate().now().waiting == 20).await;
    assert_eq!(harness.model.asks().len(), 0);
    assert_eq!(harness.gateway.gate().now().inflight, 0);
    harness.gateway.gate().open();
    for call in calls {
        assert_eq!(call.await.expect("a task").expect("an answer").status(), 200);
    }
    harness.gateway.gate().drained().await;
    assert_eq!(harness.store.calls("r").await.expect("calls").len(), 20, "none is lost");
}

#[tokio::test]
async fn after_the_deadline_a_call_gets_retry_after() {
    let pause_deadline = Duration::from_millis(10);
    let harness = Harness::new(GatewayConfig { pause_deadline, ..config() }, replying("2")).await;
    harness.rollout("r").await;
    harness.gateway.gate().close(closed());
    let refused = harness.chat("r", "1+1").await.is(429);
    assert_eq!(refused.headers["retry-after"], "7");
    assert_eq!(refused.headers["x-agl-paused"], "true");
    assert!(refused.json()["error"]["message"].as_str().is_some_and(|m| m.contains("step 3")));
    assert_eq!(harness.gateway.gate().now().waiting, 0);
}

#[tokio::test]
async fn v1s_pause_resume_and_state() {
    let harness = Harness::new(config(), replying("2")).await;
    let state = harness.get("/proxy/state").await.is(200).json();
    let open = json!({"paused": false, "retry_after_seconds": 5, "reason": null, "inflight": 0});
    assert_eq!(state, open);
    let paused = harness.post("/proxy/pause", json!({"reason": "weights"})).await.is(200).json();
    assert_eq!(
        paused,
        json!({"paused": true, "retry_after_seconds": 5, "reason": "weights", "inflight": 0})
    );
    let paused =
        harness.post("/proxy/pause", json!({"retry_after_seconds": 9})).await.is(200).json();
    assert_eq!(paused["retry_after_seconds"], 9);
    assert_eq!(harness.get("/proxy/state").await.is(200).json(), paused);
    assert_eq!(harness.post("/proxy/resume", json!({})).await.is(200).json(), open);
    harness.post("/proxy/pause", json!({"retry_after_seconds": "soon"})).await.is(422);
}
