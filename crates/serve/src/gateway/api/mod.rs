//! agent-lightning v1's management API, field by field, plus the endpoints for remote workers.
//!
//! Controllers and trainers written for v1 work unchanged. Error bodies have `detail`, as in v1;
//! an invalid body is 422.

pub(super) mod events;
pub(super) mod models;
pub(super) mod pause;
pub(super) mod rollouts;
mod triplets;
pub(super) mod views;
pub(super) mod workers;

use axum::extract::Request;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::error::Refusal;
use super::http;
use super::state::State;

/// The body of a management request.
async fn body<T: DeserializeOwned>(state: &State, request: Request) -> Result<T, Refusal> {
    http::parse(&bytes(state, request).await?)
}

async fn bytes(state: &State, request: Request) -> Result<Bytes, Refusal> {
    let config = &state.config;
    http::read(request.into_body(), config.max_body_bytes, config.body_timeout).await
}
