//! `/api/rollouts`: create, list, read, update, delete, and the log of finished rollouts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error::Refusal;
use super::super::ids;
use super::super::state::State;
use super::{body, views};
use crate::store::{Filter, NewRollout, RolloutState, StatusPatch, StoreError, default_config};

/// v1's `RolloutCreate`.
#[derive(Deserialize)]
pub(in crate::gateway) struct Create {
    input: Value,
    #[serde(default = "yes")]
    is_train: bool,
    config: Option<Config>,
    metadata: Option<Metadata>,
    rollout_id: Option<String>,
}

fn yes() -> bool {
    true
}

/// v1's `RolloutConfig`.
#[derive(Deserialize)]
struct Config {
    #[serde(default = "an_hour")]
    timeout_seconds: i64,
    local: Option<Local>,
    k8s: Option<Kubernetes>,
}

fn an_hour() -> i64 {
    3600
}

#[derive(Deserialize)]
struct Local {
    agent_class: Option<String>,
    #[serde(default)]
    env_map: Map<String, Value>,
}

#[derive(Deserialize)]
struct Kubernetes {
    job_template: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    batch_idx: Option<i64>,
    sample_idx_in_batch: Option<i64>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// `POST /api/rollouts`
pub(in crate::gateway) async fn create(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Response, Refusal> {
    let all: Vec<Create> = body(&state, request).await?;
    let all = all.into_iter().enumerate().map(new).collect::<Result<Vec<_>, _>>()?;
    let created = state.store.create(all).await?;
    let views: Vec<Value> = created.iter().map(|(rollout, _)| views::rollout(rollout)).collect();
    Ok((StatusCode::CREATED, Json(views)).into_response())
}

fn new((position, create): (usize, Create)) -> Result<NewRollout, Refusal> {
    let place = position.to_string();
    if let Some(id) = &create.rollout_id {
        ids::check("rollout_id", id)
            .map_err(|message| Refusal::unprocessable(&["body", &place, "rollout_id"], message))?;
    }
    let mut config = default_config();
    if let Some(given) = create.config {
        config.insert("timeout_seconds".into(), given.timeout_seconds.into());
        if let Some(local) = given.local {
            let local = json!({"agent_class": local.agent_class, "env_map": local.env_map});
            config.insert("local".into(), local);
        }
        if let Some(kubernetes) = given.k8s {
            config.insert("k8s".into(), json!({"job_template": kubernetes.job_template}));
        }
    }
    let metadata = create.metadata.map(|given| {
        let mut metadata = Map::new();
        metadata.insert("batch_idx".into(), json!(given.batch_idx));
        metadata.insert("sample_idx_in_batch".into(), json!(given.sample_idx_in_batch));
        metadata.extend(given.extra);
        metadata
    });
    Ok(NewRollout {
        id: create.rollout_id,
        input: create.input,
        is_train: create.is_train,
        config,
        metadata: metadata.unwrap_or_default(),
        claimable: true,
        hosted: false,
    })
}

/// `GET /api/rollouts?state_in=queuing&state_in=running&limit=500`
pub(in crate::gateway) async fn list(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (mut states, mut limit) = (Vec::new(), 500);
    for (name, value) in &query {
        match name.as_str() {
            "state_in" => states.push(state_named(value, &["query", "state_in"])?),
            "limit" => limit = number(value, "limit")?,
            _ => {}
        }
    }
    if states.is_empty() {
        return Err(Refusal::unprocessable(&["query", "state_in"], "Field required"));
    }
    let limit = usize::try_from(limit).unwrap_or(0);
    let filter = Filter { states, limit: Some(limit), ..Filter::default() };
    let rollouts = state.store.rollouts(filter).await?;
    Ok(Json(rollouts.iter().map(views::rollout).collect::<Vec<_>>()).into_response())
}

pub(super) fn state_named(name: &str, place: &[&str]) -> Result<RolloutState, Refusal> {
    RolloutState::parse(name).ok_or_else(|| {
        let names = RolloutState::ALL.map(RolloutState::name).join(", ");
        Refusal::unprocessable(place, format!("Input should be one of {names}"))
    })
}

fn number(value: &str, name: &str) -> Result<i64, Refusal> {
    value
        .parse()
        .map_err(|_| Refusal::unprocessable(&["query", name], "Input should be a valid integer"))
}

/// `GET /api/rollouts/terminal?after=0&limit=1000`
pub(in crate::gateway) async fn terminal(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let (mut after, mut limit) = (0, 1000);
    for (name, value) in &query {
        match name.as_str() {
            "after" => after = number(value, "after")?,
            "limit" => limit = number(value, "limit")?,
            _ => {}
        }
    }
    let (after, limit) = (after.max(0).unsigned_abs(), limit.max(1).unsigned_abs());
    let page = state.store.terminal(after, limit).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|item| {
            json!({
                "rollout_id": item.rollout_id,
                "state": item.state.name(),
                "data_id": item.data_id,
                "is_train": item.is_train,
            })
        })
        .collect();
    let body = json!({"items": items, "next_after": page.next_after, "total_terminal": page.total});
    Ok(Json(body).into_response())
}

/// `GET /api/rollouts/{id}`
pub(in crate::gateway) async fn read(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let found = state.store.rollout(&id).await?;
    let rollout = found.ok_or_else(|| StoreError::UnknownRollout(id.clone()))?;
    let attempts = state.store.attempts(&id).await?;
    let body = json!({"rollout": views::rollout(&rollout), "attempts": attempts});
    Ok(Json(body).into_response())
}

#[derive(Deserialize)]
struct Patch {
    status: Option<Map<String, Value>>,
}

/// `PATCH /api/rollouts/{id}`
pub(in crate::gateway) async fn change(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let Patch { status } = body(&state, request).await?;
    let patch = status_patch(status.unwrap_or_default())?;
    let rollout = state.store.patch(&id, patch.clone()).await?;
    if patch.state.is_some_and(RolloutState::is_terminal) {
        state.rollouts.ended(&id, patch);
    }
    Ok(Json(views::rollout(&rollout)).into_response())
}

fn status_patch(given: Map<String, Value>) -> Result<StatusPatch, Refusal> {
    let mut patch = StatusPatch::default();
    for (name, value) in given {
        let place = ["body", "status", &name];
        let text = |value: Value| match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(Refusal::unprocessable(&place, "Input should be a valid string")),
        };
        match name.as_str() {
            "state" => {
                let name = value.as_str().unwrap_or_default();
                patch.state = Some(state_named(name, &place)?);
            }
            "k8s_job_name" => patch.k8s_job_name = Some(text(value)?),
            "last_attempt_id" => patch.last_attempt_id = Some(text(value)?),
            "error_message" => patch.error_message = Some(text(value)?),
            _ => return Err(Refusal::unprocessable(&place, "Extra inputs are not permitted")),
        }
    }
    Ok(patch)
}

/// `DELETE /api/rollouts/{id}`
pub(in crate::gateway) async fn delete(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    state.store.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
