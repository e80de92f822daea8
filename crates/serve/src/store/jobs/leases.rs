//! Attempts, and leases of rollouts to workers.

use rusqlite::{Connection, params};

use super::super::StoreError;
use super::super::row::{ROLLOUT, RolloutRow, known, rollout_of};
use super::super::types::{Claim, Requeued, RolloutState, StatusPatch};
use super::super::writer::Writing;
use super::rollouts::{patch, save};

/// Leases queued rollouts, oldest first, each as a new attempt.
pub(in crate::store) fn claim(
    writing: &mut Writing<'_>,
    worker: &str,
    count: usize,
    lease_seconds: f64,
) -> Result<Vec<Claim>, StoreError> {
    let sql = format!(
        "SELECT {ROLLOUT} FROM rollouts WHERE state = 0 AND claimable = 1 ORDER BY seq LIMIT ?1"
    );
    let rows = writing
        .db
        .prepare_cached(&sql)?
        .query_map([count as i64], rollout_of)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let lease_until = writing.now + lease_seconds;
    let mut claims = Vec::with_capacity(rows.len());
    for mut row in rows {
        let attempt_id = begin_attempt(&mut row);
        row.rollout.status.state = RolloutState::Running;
        row.worker = Some(worker.to_owned());
        row.lease_until = Some(lease_until);
        save(writing, &mut row)?;
        claims.push(Claim { rollout: row.rollout, attempt_id, lease_until });
    }
    Ok(claims)
}

fn begin_attempt(row: &mut RolloutRow) -> String {
    let attempt = row.attempts.to_string();
    row.attempts += 1;
    row.rollout.status.last_attempt_id = Some(attempt.clone());
    attempt
}

/// Begins another attempt of an unfinished rollout. With `requeue`, the next claim begins it;
/// until then there is no current attempt and the id is empty.
pub(in crate::store) fn next_attempt(
    writing: &mut Writing<'_>,
    id: &str,
    requeue: bool,
) -> Result<String, StoreError> {
    let mut row = known(writing.db, id)?;
    let from = row.rollout.status.state;
    if from.is_terminal() {
        let to = RolloutState::Running;
        return Err(StoreError::Transition { id: id.to_owned(), from, to });
    }
    // A rollout that was never claimed is at attempt "0".
    row.attempts = row.attempts.max(1);
    let attempt = if requeue {
        release(&mut row);
        String::new()
    } else {
        row.rollout.status.state = RolloutState::Running;
        begin_attempt(&mut row)
    };
    save(writing, &mut row)?;
    Ok(attempt)
}

fn release(row: &mut RolloutRow) {
    row.rollout.status.state = RolloutState::Queuing;
    row.worker = None;
    row.lease_until = None;
}

/// Checks that `worker` holds the lease of this attempt.
fn leased(
    db: &Connection,
    worker: &str,
    rollout_id: &str,
    attempt_id: &str,
) -> Result<RolloutRow, StoreError> {
    let row = known(db, rollout_id)?;
    let status = &row.rollout.status;
    let why = if status.state.is_terminal() {
        "the rollout is finished"
    } else if status.attempt() != attempt_id || row.lease_until.is_none() {
        "its lease expired or was revoked"
    } else if row.worker.as_deref() != Some(worker) {
        "it is leased to another worker"
    } else {
        return Ok(row);
    };
    Err(StoreError::NotLeased {
        rollout_id: rollout_id.to_owned(),
        attempt_id: attempt_id.to_owned(),
        worker: worker.to_owned(),
        why,
    })
}

/// Renews a lease; returns its new expiry.
pub(in crate::store) fn heartbeat(
    writing: &mut Writing<'_>,
    worker: &str,
    rollout_id: &str,
    attempt_id: &str,
    lease_seconds: f64,
) -> Result<f64, StoreError> {
    let row = leased(writing.db, worker, rollout_id, attempt_id)?;
    let until = writing.now + lease_seconds;
    writing
        .db
        // The time of the update bounds the lease from now if a later process starts with an
        // earlier clock.
        .prepare_cached("UPDATE rollouts SET lease_until = ?2, updated_at = ?3 WHERE seq = ?1")?
        .execute(params![row.seq, until, writing.now])?;
    Ok(until)
}

/// Releases a lease. A hosted rollout then waits for its trainer, any other one ends in the state
/// of `end`.
pub(in crate::store) fn end_lease(
    writing: &mut Writing<'_>,
    worker: &str,
    rollout_id: &str,
    attempt_id: &str,
    end: StatusPatch,
) -> Result<(), StoreError> {
    let mut row = leased(writing.db, worker, rollout_id, attempt_id)?;
    if row.hosted {
        row.lease_until = None;
        return save(writing, &mut row);
    }
    patch(writing, rollout_id, end).map(|_| ())
}

/// Requeues rollouts whose lease expired.
pub(in crate::store) fn requeue_expired(
    writing: &mut Writing<'_>,
) -> Result<Vec<Requeued>, StoreError> {
    let sql = format!("SELECT {ROLLOUT} FROM rollouts WHERE lease_until < ?1");
    let rows = writing
        .db
        .prepare_cached(&sql)?
        .query_map([writing.now], rollout_of)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut requeued = Vec::with_capacity(rows.len());
    for mut row in rows {
        let worker = row.worker.clone().unwrap_or_default();
        release(&mut row);
        save(writing, &mut row)?;
        let attempt_id = row.rollout.status.attempt().to_owned();
        requeued.push(Requeued { rollout_id: row.rollout.id, attempt_id, worker });
    }
    Ok(requeued)
}
