//! `/api/workers/…`: agents on other machines take rollouts themselves.
//!
//! A worker claims rollouts for a lease, prolongs the lease while it works, posts answers and
//! rewards to the event address of its attempt, and gives the lease back. One that falls silent
//! loses it: the rollout is queued again, and the next claim is another attempt, beside which
//! nothing of the old one counts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::Refusal;
use super::super::ids;
use super::super::rollouts::Happening;
use super::super::state::State;
use super::rollouts::state_named;
use super::{body, views};
use crate::store::{Claim, RolloutState, StatusPatch};

/// Most rollouts of one claim.
const MOST: usize = 1000;

#[derive(Deserialize)]
struct Claiming {
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
struct Beating {
    worker: String,
    leases: Vec<Lease>,
    #[serde(default = "a_minute")]
    lease_seconds: f64,
}

#[derive(Deserialize)]
struct Finishing {
    worker: String,
    #[serde(flatten)]
    lease: Lease,
    /// `succeeded` or `failed`.
    state: String,
    error_message: Option<String>,
}

/// `POST /api/workers/claim`: `{"worker", "count", "lease_seconds"}` → `{"claims": […]}`, each
/// with the rollout, its attempt, the end of the lease, and the addresses for its agent.
pub(in crate::gateway) async fn claim(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Claiming { worker, count, lease_seconds } = body(&state, request).await?;
    check(&worker, lease_seconds)?;
    let claims = state.store.claim(&worker, count.min(MOST), lease_seconds).await?;
    for claim in &claims {
        // Before the worker hears of it, so that nothing of its agent comes too early.
        if let Some(hosted) = state.rollouts.find(&claim.rollout.id) {
            hosted.begin(&claim.attempt_id, Happening::Claimed { worker: worker.clone() });
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
        return Err(Refusal::unprocessable(&place, "a lease has 1 to 86400 seconds"));
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
/// "lease_seconds"}` → `{"leases": […]}`, each with its new end or the reason why it is lost.
pub(in crate::gateway) async fn heartbeat(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Beating { worker, leases, lease_seconds } = body(&state, request).await?;
    check(&worker, lease_seconds)?;
    let beats = leases.iter().take(MOST).map(|Lease { rollout_id, attempt_id }| {
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

/// `POST /api/workers/finish`: `{"worker", "rollout_id", "attempt_id", "state",
/// "error_message"}` → `{"status": "ok"}`, or 409 where the lease was lost.
pub(in crate::gateway) async fn finish(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Finishing { worker, lease, state: end, error_message } = body(&state, request).await?;
    let place = ["body", "state"];
    let end = state_named(&end, &place)?;
    if !end.is_terminal() {
        return Err(Refusal::unprocessable(&place, "a worker ends with succeeded or failed"));
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
