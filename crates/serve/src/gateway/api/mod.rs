//! agent-lightning v1's management API, field by field, and what remote workers need beyond it.
//!
//! A controller or trainer written for v1 finds here what it expects. Refusals have `detail`,
//! as v1's have; a body that does not validate is 422.

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
