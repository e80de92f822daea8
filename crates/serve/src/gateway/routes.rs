//! The route table.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Request, State as Shared};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use serde_json::{Value, json};

use super::api::{events, models, pause, rollouts, workers};
use super::calls::{self, Attempt};
use super::error::Refusal;
use super::state::State;
use crate::call::Endpoint;
use crate::protocol;

/// All routes, plus `further`. Everything but `/healthz` requires the key, if there is one.
pub(super) fn router(state: Arc<State>, further: Router) -> Router {
    let auth = middleware::from_fn_with_state(state.clone(), authenticate);
    let open = |endpoint| {
        let call = move |Shared(state): Shared<Arc<State>>, request: Request| {
            calls::call(state, endpoint, None, request)
        };
        post(call)
    };
    let attributed = "/proxy/rollout/{id}/attempt/{attempt}/mode/{mode}/{*path}";
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::read))
        .route("/v1/chat/completions", open(Endpoint::Chat))
        .route("/v1/completions", open(Endpoint::Completions))
        .route("/v1/responses", open(Endpoint::Responses))
        .route("/v1/messages", open(Endpoint::Messages))
        .route(attributed, get(of_attempt).post(of_attempt))
        .route("/proxy/pause", post(pause::pause))
        .route("/proxy/resume", post(pause::resume))
        .route("/proxy/state", get(pause::read))
        .route("/api/rollouts", get(rollouts::list).post(rollouts::create))
        .route("/api/rollouts/terminal", get(rollouts::terminal))
        .route(
            "/api/rollouts/{id}",
            patch(rollouts::change).get(rollouts::read).delete(rollouts::delete),
        )
        .route("/api/rollouts/{id}/events", get(events::list))
        .route("/api/rollouts/{id}/attempt/{attempt}/events", post(events::post))
        .route("/api/models", post(models::register).delete(models::clear))
        .route("/api/workers/claim", post(workers::claim))
        .route("/api/workers/heartbeat", post(workers::heartbeat))
        .route("/api/workers/finish", post(workers::finish))
        .route("/metrics", get(metrics))
        .merge(further.with_state(()))
        .fallback(no_route)
        .method_not_allowed_fallback(other_method)
        .layer(auth)
        .route("/healthz", get(healthz))
        .with_state(state)
}

/// Authentication middleware.
async fn authenticate(
    Shared(state): Shared<Arc<State>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    state.lock.check(request.headers())?;
    Ok(next.run(request).await)
}

async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Result<Response, Refusal> {
    let mut text = state
        .metrics
        .text(&state.store, &state.gate.now())
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    if let Some(local) = &state.local {
        text += &super::metrics::lines(&local.figures());
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn no_route(request: Request) -> Refusal {
    Refusal::not_found(format!("there is no route {}", request.uri().path()))
}

async fn other_method(request: Request) -> Refusal {
    let (method, path) = (request.method(), request.uri().path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not support {method}"))
}

/// A call below `/proxy/rollout/{id}/attempt/{attempt}/mode/{mode}/`.
async fn of_attempt(
    Shared(state): Shared<Arc<State>>,
    Path((rollout_id, attempt_id, mode, path)): Path<(String, String, String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let is_train = match mode.as_str() {
        "train" => true,
        "val" => false,
        _ => return Err(Refusal::not_found(format!("Unsupported proxy mode: {mode}"))),
    };
    let endpoint = match path.as_str() {
        "openai/v1/chat/completions" => Endpoint::Chat,
        "openai/v1/completions" => Endpoint::Completions,
        "openai/v1/responses" => Endpoint::Responses,
        "anthropic/v1/messages" => Endpoint::Messages,
        "openai/v1/models" if request.method() == Method::GET => {
            return models_of(&state, &rollout_id);
        }
        _ => return Err(Refusal::not_found(format!("Unsupported upstream path: {path}"))),
    };
    if request.method() != Method::POST {
        return Err(other_method(request).await);
    }
    let attempt = Attempt { rollout_id, attempt_id, is_train };
    Ok(calls::call(state, endpoint, Some(attempt), request).await)
}

/// The models available to an agent: those of its rollout's backend.
fn models_of(state: &State, rollout_id: &str) -> Result<Response, Refusal> {
    if let Some(hosted) = state.rollouts.find(rollout_id) {
        return Ok(Json(protocol::models(&*hosted.backend)).into_response());
    }
    if state.store.brief(rollout_id).is_none() {
        return Err(Refusal::not_found(format!("Rollout not found: {rollout_id}")));
    }
    Ok(Json(models::all(state)).into_response())
}
