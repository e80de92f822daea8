//! The wire formats: convert request bodies to [`Ask`](crate::backend::Ask)s and events to
//! responses.
//!
//! Four formats share one path. A format parses a body ([`fields`]) into a plan ([`plan::Plan`]):
//! the generations and a response writer. [`run`] submits them to the backend, passes every event
//! to the writer, and has the call recorded before its last bytes are sent. So formats do not deal
//! with channels, disconnects and records, and `run` does not deal with JSON.
//!
//! Every requested feature is honoured or rejected by name, never ignored: an agent whose penalty,
//! image or web search was silently dropped would be trained on something else than it requested.
//! [`neutral`] lists the fields accepted because they have no effect.

mod bodies;
mod chat;
mod completions;
pub mod error;
mod fields;
mod ids;
mod logprobs;
mod messages;
mod neutral;
mod options;
mod plan;
mod responses;
mod run;
mod schema;
mod sse;
mod tools;
mod usage;

use std::time::Instant;

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};

pub use self::error::{ApiError, Shape};
use self::plan::Plan;
use crate::backend::{Backend, ModelCard};
use crate::call::{CallContext, Endpoint};

/// Answers one call, whole or as a stream of server-sent events, and has it recorded.
///
/// Errors have the body and status of the endpoint's API. Dropping the returned future or the
/// response body cancels the generation; a call cancelled before its answer is complete leaves no
/// record.
pub async fn handle(endpoint: Endpoint, body: Bytes, context: CallContext) -> Response {
    let started = Instant::now();
    let request = match object(&body) {
        Ok(request) => request,
        Err(error) => return error.respond(Shape::of(endpoint)),
    };
    drop(body);
    let planned = read(endpoint, &request, &context).await;
    let call = run::Call { endpoint, request: Value::Object(request), context, started };
    match planned {
        Ok(plan) => run::answer(plan, call).await,
        Err(error) => call.refuse(error).await,
    }
}

async fn read(
    endpoint: Endpoint,
    body: &Map<String, Value>,
    context: &CallContext,
) -> Result<Plan, ApiError> {
    match endpoint {
        Endpoint::Chat => chat::read(body, context),
        Endpoint::Completions => completions::read(body, context),
        Endpoint::Responses => responses::read(body, context).await,
        Endpoint::Messages => messages::read(body, context),
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::invalid(None, "the body must be a JSON object")),
        Err(e) => Err(ApiError::invalid(None, format!("the body is not valid JSON: {e}"))),
    }
}

/// The body of `GET /v1/models`.
pub fn models(backend: &dyn Backend) -> Value {
    let data: Vec<Value> = backend.models().iter().map(card).collect();
    json!({"object": "list", "data": data})
}

/// The body of `GET /v1/models/{id}`.
///
/// # Errors
/// 404 if the backend has no model of this name.
pub fn model(backend: &dyn Backend, id: &str) -> Result<Value, ApiError> {
    let found = backend.models().iter().find(|model| model.id == id).map(card);
    found.ok_or_else(|| ApiError::unknown_model(id))
}

fn card(model: &ModelCard) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "leyden",
        "max_model_len": model.context,
    })
}
