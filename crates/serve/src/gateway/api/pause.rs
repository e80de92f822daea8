//! `/proxy/pause`, `/proxy/resume`, `/proxy/state`: used by an external trainer while it updates
//! its servers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::Refusal;
use super::super::gate::Closed;
use super::super::state::State;
use super::body;

#[derive(Deserialize)]
struct Pause {
    #[serde(default = "five")]
    retry_after_seconds: u64,
    reason: Option<String>,
}

fn five() -> u64 {
    5
}

/// `POST /proxy/pause`
pub(in crate::gateway) async fn pause(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Pause { retry_after_seconds, reason } = body(&state, request).await?;
    state.gate.close(Closed { retry_after_seconds, reason });
    Ok(view(&state))
}

/// `POST /proxy/resume`
pub(in crate::gateway) async fn resume(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    state.gate.open();
    view(&state)
}

/// `GET /proxy/state`
pub(in crate::gateway) async fn read(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    view(&state)
}

fn view(state: &State) -> Json<Value> {
    let now = state.gate.now();
    let (retry_after, reason) = match &now.closed {
        Some(closed) => (closed.retry_after_seconds, closed.reason.clone()),
        None => (five(), None),
    };
    Json(json!({
        "paused": now.closed.is_some(),
        "retry_after_seconds": retry_after,
        "reason": reason,
        "inflight": now.inflight,
    }))
}
