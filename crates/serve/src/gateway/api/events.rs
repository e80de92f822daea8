//! `/api/rollouts/{id}/attempt/{attempt}/events`: posting and listing agents' events.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::error::Refusal;
use super::super::retries::event_key;
use super::super::state::State;
use super::super::{http, ids, reports};
use super::{triplets, views};
use crate::store::NewEvent;

/// v1's `EventCreate`.
#[derive(Deserialize)]
struct Create {
    event_type: String,
    #[serde(default)]
    data: Map<String, Value>,
}

/// `POST /api/rollouts/{id}/attempt/{attempt}/events`. Repeated posts with the same
/// `Idempotency-Key` create one event.
pub(in crate::gateway) async fn post(
    Shared(state): Shared<Arc<State>>,
    Path((id, attempt)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    ids::check("attempt_id", &attempt).map_err(Refusal::not_found)?;
    let key =
        request.headers().get("idempotency-key").map(|key| event_key(&attempt, key.as_bytes()));
    let create: Create = http::parse(&super::bytes(&state, request).await?)?;
    let data = Value::Object(create.data);
    // Only a trainer in this process depends on the event's content; v1 accepts anything.
    let report = match state.rollouts.find(&id) {
        None => None,
        Some(_) => Some(
            reports::read(&create.event_type, &data)
                .map_err(|message| Refusal::unprocessable(&["body", "data"], message))?,
        ),
    };
    let text = data.to_string();
    let event = NewEvent {
        rollout_id: id.clone(),
        attempt_id: attempt.clone(),
        event_type: create.event_type.clone(),
        data: text.clone(),
        key,
        call: None,
    };
    let appended = state.store.append(event).await?;
    if let Some(report) = report.filter(|_| !appended.duplicate) {
        state.rollouts.report(&id, &attempt, report);
    }
    Ok(json(views::event(&create.event_type, &id, &attempt, appended.timestamp, &text)))
}

/// `GET /api/rollouts/{id}/events?event_type=&format=triplet`
pub(in crate::gateway) async fn list(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let named = |name: &str| {
        let found = query.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    let mut events = state.store.events(&id, named("event_type")).await?;
    if named("format") == Some("triplet") {
        let calls = state.store.calls(&id).await?;
        events = triplets::view(events, &calls);
    }
    Ok(json(views::events(&id, &events)))
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
