//! Calls during an update of the weights.

use std::time::Duration;

use leyden_serve::gateway::{Closed, GatewayConfig};
use serde_json::json;

use super::world::{World, chat_body, chat_path, config, says, until};

fn closed() -> Closed {
    Closed { retry_after_seconds: 7, reason: Some("step 3".into()) }
}

#[tokio::test]
async fn a_call_waits_for_the_end_of_an_update() {
    let world = World::new(config(), says("2")).await;
    world.rollout("r").await;
    world.gateway.gate().close(closed());
    let url = format!("{}{}", world.url, chat_path("r"));
    let calls: Vec<_> = (0..20)
        .map(|i| {
            let body = chat_body(&format!("{i}+{i}"));
            tokio::spawn(world.client.post(&url).json(&body).send())
        })
        .collect();
    until(async || world.gateway.gate().now().waiting == 20).await;
    assert_eq!(world.model.asks().len(), 0);
    assert_eq!(world.gateway.gate().now().inflight, 0);
    world.gateway.gate().open();
    for call in calls {
        assert_eq!(call.await.expect("a task").expect("an answer").status(), 200);
    }
    world.gateway.gate().drained().await;
    assert_eq!(world.store.calls("r").await.expect("calls").len(), 20, "none is lost");
}

#[tokio::test]
async fn past_the_deadline_it_is_told_to_come_again() {
    let pause_deadline = Duration::from_millis(10);
    let world = World::new(GatewayConfig { pause_deadline, ..config() }, says("2")).await;
    world.rollout("r").await;
    world.gateway.gate().close(closed());
    let refused = world.chat("r", "1+1").await.is(429);
    assert_eq!(refused.headers["retry-after"], "7");
    assert_eq!(refused.headers["x-agl-paused"], "true");
    assert!(refused.json()["error"]["message"].as_str().is_some_and(|m| m.contains("step 3")));
    assert_eq!(world.gateway.gate().now().waiting, 0);
}

#[tokio::test]
async fn v1s_pause_resume_and_state() {
    let world = World::new(config(), says("2")).await;
    let state = world.get("/proxy/state").await.is(200).json();
    let open = json!({"paused": false, "retry_after_seconds": 5, "reason": null, "inflight": 0});
    assert_eq!(state, open);
    let paused = world.post("/proxy/pause", json!({"reason": "weights"})).await.is(200).json();
    assert_eq!(
        paused,
        json!({"paused": true, "retry_after_seconds": 5, "reason": "weights", "inflight": 0})
    );
    let paused = world.post("/proxy/pause", json!({"retry_after_seconds": 9})).await.is(200).json();
    assert_eq!(paused["retry_after_seconds"], 9);
    assert_eq!(world.get("/proxy/state").await.is(200).json(), paused);
    assert_eq!(world.post("/proxy/resume", json!({})).await.is(200).json(), open);
    world.post("/proxy/pause", json!({"retry_after_seconds": "soon"})).await.is(422);
}
