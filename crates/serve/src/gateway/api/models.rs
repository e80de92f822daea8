//! `/api/models`: registration of model servers. `/v1/models`: the available models.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::Refusal;
use super::super::state::State;
use super::body;
use crate::protocol;
use crate::store::ModelServer;

/// v1's `Model`.
#[derive(Deserialize)]
struct Register {
    model: String,
    endpoint: String,
    #[serde(default)]
    version: i64,
}

/// `POST /api/models`
pub(in crate::gateway) async fn register(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Response, Refusal> {
    let all: Vec<Register> = body(&state, request).await?;
    let mut servers = Vec::with_capacity(all.len());
    for (position, Register { model, endpoint, version }) in all.into_iter().enumerate() {
        let http = endpoint.parse::<axum::http::Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !http {
            let place = ["body", &position.to_string(), "endpoint"];
            let message = format!("{endpoint} is not a URL of the form http://host:port/v1");
            return Err(Refusal::unprocessable(&place, message));
        }
        servers.push(ModelServer { model, endpoint, version });
    }
    state.store.put_models(servers.clone()).await?;
    let views: Vec<Value> = servers
        .iter()
        .map(|server| {
            json!({
                "model": server.model,
                "endpoint": server.endpoint,
                "version": server.version,
            })
        })
        .collect();
    state.upstreams.put(servers);
    Ok((StatusCode::CREATED, Json(views)).into_response())
}

/// `DELETE /api/models`
pub(in crate::gateway) async fn clear(
    Shared(state): Shared<Arc<State>>,
) -> Result<Json<Value>, Refusal> {
    state.store.clear_models().await?;
    state.upstreams.clear();
    Ok(Json(json!({"status": "ok"})))
}

/// `GET /v1/models`
pub(in crate::gateway) async fn list(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(all(&state))
}

/// The models of this process and of registered servers.
pub(in crate::gateway) fn all(state: &State) -> Value {
    let mut list = match &state.local {
        Some(backend) => protocol::models(&**backend),
        None => json!({"object": "list", "data": []}),
    };
    if let Some(data) = list.get_mut("data").and_then(Value::as_array_mut) {
        for id in state.upstreams.models() {
            data.push(json!({
                "id": id,
                "object": "model",
                "created": 0,
                "owned_by": "upstream",
            }));
        }
    }
    list
}

/// `GET /v1/models/{id}`; the id may contain slashes.
pub(in crate::gateway) async fn read(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let list = all(&state);
    let models = list.get("data").and_then(Value::as_array).into_iter().flatten();
    let found = models.into_iter().find(|model| model.get("id").is_some_and(|name| *name == id));
    found.cloned().map(Json).ok_or_else(|| Refusal {
        code: Some("model_not_found"),
        ..Refusal::not_found(format!("The model `{id}` does not exist"))
    })
}
