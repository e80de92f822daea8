//! `/api/workers/…`: remote workers claim and run rollouts.
//!
//! A worker claims rollouts under a lease, renews the lease with heartbeats, posts answers and
//! rewards to its attempt's event address, and releases the lease. If it stops sending heartbeats,
//! the lease expires: the rollout is requeued, and the next claim starts a new attempt, after
//! which reports of the old attempt are ignored.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::Refusal;
use super::super::ids;
use super::super::rollouts::RolloutEvent;
use super::super::state::State;
use super::rollouts::state_named;
use super::{body, views};
use crate::store::{Claim, RolloutState, StatusPatch};

/// Maximum rollouts per claim.
const MAX_CLAIMS: usize = 1000;

#[derive(Deserialize)]
struct ClaimBody {
    worker: String,
    #[serde(default = "one")]
    count: usize,
    #[serde(default = "a_minute")]
    lease_seconds: f64,
}

fn one() -> usize {
    1
}

fn a_minute() -> f64 {
    60.0
}

/// One leased attempt.
#[derive(Deserialize)]
struct Lease {
    rollout_id: String,
    attempt_id: String,
}

#[derive(Deserialize)]
struct HeartbeatBody {
    worker: String,
    leases: Vec<Lease>,
    #[serde(default = "a_minute")]
    lease_seconds: f64,
}

#[derive(Deserialize)]
struct FinishBody {
    worker: String,
    #[serde(flatten)]
    lease: Lease,
    /// `succeeded` or `failed`.
    state: String,
    error_message: Option<String>,
}

/// `POST /api/workers/claim`: `{"worker", "count", "lease_seconds"}` → `{"claims": […]}`, each
/// with the rollout, its attempt, the lease's expiry, and the addresses for its agent.
pub(in crate::gateway) async fn claim(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let ClaimBody { worker, count, lease_seconds } = body(&state, request).await?;
    check(&worker, lease_seconds)?;
    let claims = state.store.claim(&worker, count.min(MAX_CLAIMS), lease_seconds).await?;
    for claim in &claims {
        // Switch attempts before the worker gets the response, so that none of its agent's
        // requests arrive too early.
        if let Some(hosted) = state.rollouts.find(&claim.rollout.id) {
            hosted.begin(&claim.attempt_id, RolloutEvent::Claimed { worker: worker.clone() });
        }
    }
    let views: Vec<Value> = claims.iter().map(|claim| view(&state, claim)).collect();
    Ok(Json(json!({"claims": views})))
}

fn check(worker: &str, lease_seconds: f64) -> Result<(), Refusal> {
    ids::check("worker", worker)
        .map_err(|message| Refusal::unprocessable(&["body", "worker"], message))?;
    if !(1.0..=86_400.0).contains(&lease_seconds) {
        let place = ["body", "lease_seconds"];
        return Err(Refusal::unprocessable(&place, "must be between 1 and 86400"));
    }
    Ok(())
}

fn view(state: &State, claim: &Claim) -> Value {
    let rollout = &claim.rollout;
    let addresses = state.rollouts.addresses(&rollout.id, &claim.attempt_id, rollout.is_train);
    let addresses = addresses.map(|addresses| {
        json!({
            "openai_base_url": addresses.openai,
            "anthropic_base_url": addresses.anthropic,
            "event_url": addresses.events,
        })
    });
    json!({
        "rollout": views::rollout(rollout),
        "attempt_id": claim.attempt_id,
        "lease_until": claim.lease_until,
        "addresses": addresses,
    })
}

/// `POST /api/workers/heartbeat`: `{"worker", "leases": [{"rollout_id", "attempt_id"}],
/// "lease_seconds"}` → `{"leases": […]}`, each with its new expiry or the reason for its loss.
pub(in crate::gateway) async fn heartbeat(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let HeartbeatBody { worker, leases, lease_seconds } = body(&state, request).await?;
    check(&worker, lease_seconds)?;
    let beats = leases.iter().take(MAX_CLAIMS).map(|Lease { rollout_id, attempt_id }| {
        state.store.heartbeat(&worker, rollout_id, attempt_id, lease_seconds)
    });
    let ends = futures::future::join_all(beats).await;
    let views: Vec<Value> = leases
        .iter()
        .zip(ends)
        .map(|(Lease { rollout_id, attempt_id }, end)| match end {
            Ok(until) => {
                json!({"rollout_id": rollout_id, "attempt_id": attempt_id, "lease_until": until})
            }
            Err(error) => json!({
                "rollout_id": rollout_id,
                "attempt_id": attempt_id,
                "lost": error.to_string(),
            }),
        })
        .collect();
    Ok(Json(json!({"leases": views})))
}

/// `POST /api/workers/finish`: `{"worker", "rollout_id", "attempt_id", "state", "error_message"}`
/// → `{"status": "ok"}`, or 409 if the lease was lost.
pub(in crate::gateway) async fn finish(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let FinishBody { worker, lease, state: end, error_message } = body(&state, request).await?;
    let place = ["body", "state"];
    let end = state_named(&end, &place)?;
    if !end.is_terminal() {
        return Err(Refusal::unprocessable(&place, "must be succeeded or failed"));
    }
    let patch = StatusPatch {
        state: Some(end),
        error_message: (end == RolloutState::Failed).then_some(error_message),
        ..StatusPatch::default()
    };
    let (id, attempt) = (&lease.rollout_id, &lease.attempt_id);
    state.store.end_lease(&worker, id, attempt, patch.clone()).await?;
    state.rollouts.ended(id, patch);
    Ok(Json(json!({"status": "ok"})))
}
