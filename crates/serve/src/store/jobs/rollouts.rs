//! Creating, updating and deleting rollouts.

use rusqlite::params;
use serde_json::{Map, Value};

use super::super::index::{Brief, Effect};
use super::super::row::{RolloutRow, find, known};
use super::super::types::{NewRollout, RolloutState, RolloutStatus, StatusPatch, StoredRollout};
use super::super::writer::Writing;
use super::super::{StoreError, random_id};

/// `input.data_id`, else `input.instance_id`, as text.
fn data_id(input: &Value) -> String {
    let named = |key: &str| match input.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.as_f64() != Some(0.0) => Some(number.to_string()),
        _ => None,
    };
    named("data_id").or_else(|| named("instance_id")).unwrap_or_default()
}

/// Creates the rollouts that do not exist; returns for each whether it existed.
pub(in crate::store) fn create(
    writing: &mut Writing<'_>,
    all: Vec<NewRollout>,
) -> Result<Vec<(StoredRollout, bool)>, StoreError> {
    let mut created = Vec::with_capacity(all.len());
    for new in all {
        let id = new.id.clone().unwrap_or_else(random_id);
        if let Some(row) = find(writing.db, &id)? {
            created.push((row.rollout, true));
            continue;
        }
        created.push((insert(writing, id, new)?, false));
    }
    Ok(created)
}

fn insert(
    writing: &mut Writing<'_>,
    id: String,
    new: NewRollout,
) -> Result<StoredRollout, StoreError> {
    let input = new.input.to_string();
    *writing.bytes += input.len();
    let mut statement = writing.db.prepare_cached(
        "INSERT INTO rollouts (id, input, data_id, is_train, config, metadata, state, version,
             created_at, updated_at, claimable, hosted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 1, ?7, ?7, ?8, ?9)",
    )?;
    let seq = statement.insert(params![
        id,
        input,
        data_id(&new.input),
        new.is_train,
        to_text(&new.config),
        to_text(&new.metadata),
        writing.now,
        new.claimable,
        new.hosted,
    ])?;
    let status = RolloutStatus {
        state: RolloutState::Queuing,
        k8s_job_name: None,
        last_attempt_id: None,
        error_message: None,
        version: 1,
        created_at: writing.now,
        updated_at: writing.now,
    };
    let brief = Brief {
        seq,
        state: status.state,
        last_attempt_id: None,
        is_train: new.is_train,
        hosted: new.hosted,
    };
    writing.effects.push(Effect::Put(id.clone(), brief));
    let NewRollout { input, is_train, config, metadata, .. } = new;
    Ok(StoredRollout { id, input, is_train, config, metadata, status })
}

fn to_text(map: &Map<String, Value>) -> String {
    serde_json::to_string(map).unwrap_or_else(|_| "{}".into())
}

/// Writes an updated status.
pub(super) fn save(writing: &mut Writing<'_>, row: &mut RolloutRow) -> Result<(), StoreError> {
    let status = &mut row.rollout.status;
    status.version += 1;
    status.updated_at = writing.now;
    writing
        .db
        .prepare_cached(
            "UPDATE rollouts SET state = ?2, k8s_job_name = ?3, last_attempt_id = ?4,
             error_message = ?5, version = ?6, updated_at = ?7, attempts = ?8, worker = ?9,
             lease_until = ?10
         WHERE seq = ?1",
        )?
        .execute(params![
            row.seq,
            status.state as i64,
            status.k8s_job_name,
            status.last_attempt_id,
            status.error_message,
            status.version.cast_signed(),
            status.updated_at,
            row.attempts,
            row.worker,
            row.lease_until,
        ])?;
    writing.effects.push(Effect::Put(row.rollout.id.clone(), row.brief()));
    Ok(())
}

/// Applies a client's status update.
pub(in crate::store) fn patch(
    writing: &mut Writing<'_>,
    id: &str,
    patch: StatusPatch,
) -> Result<StoredRollout, StoreError> {
    let mut row = known(writing.db, id)?;
    if patch.is_empty() {
        return Ok(row.rollout);
    }
    let status = &mut row.rollout.status;
    if let Some(state) = patch.state {
        if !status.state.may_become(state) {
            let from = status.state;
            return Err(StoreError::Transition { id: id.to_owned(), from, to: state });
        }
        status.state = state;
    }
    if let Some(name) = patch.k8s_job_name {
        status.k8s_job_name = name;
    }
    if let Some(attempt) = patch.last_attempt_id {
        status.last_attempt_id = attempt;
    }
    if let Some(message) = patch.error_message {
        status.error_message = message;
    }
    let ended = patch.state.is_some_and(RolloutState::is_terminal);
    if ended {
        row.lease_until = None;
        writing
            .db
            .prepare_cached(
                "INSERT INTO terminal (position, rollout)
             SELECT coalesce(max(position) + 1, 0), ?1 FROM terminal",
            )?
            .execute([row.seq])?;
    }
    save(writing, &mut row)?;
    Ok(row.rollout)
}

/// Deletes a rollout and its events; a missing rollout is no error.
pub(in crate::store) fn delete(writing: &mut Writing<'_>, id: &str) -> Result<(), StoreError> {
    let Some(row) = find(writing.db, id)? else { return Ok(()) };
    let db = writing.db;
    db.prepare_cached(
        "DELETE FROM calls WHERE event IN (SELECT seq FROM events WHERE rollout = ?1)",
    )?
    .execute([row.seq])?;
    db.prepare_cached("DELETE FROM events WHERE rollout = ?1")?.execute([row.seq])?;
    db.prepare_cached("DELETE FROM rollouts WHERE seq = ?1")?.execute([row.seq])?;
    writing.held.remove(&row.seq);
    writing.effects.push(Effect::Delete(id.to_owned()));
    Ok(())
}

/// Fails the rollouts of trainers of an earlier process.
pub(in crate::store) fn fail_orphans(writing: &mut Writing<'_>) -> Result<usize, StoreError> {
    let ids = writing
        .db
        .prepare("SELECT id FROM rollouts WHERE hosted = 1 AND state < 2")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for id in &ids {
        let failed = StatusPatch {
            state: Some(RolloutState::Failed),
            error_message: Some(Some("its trainer's process ended".into())),
            ..StatusPatch::default()
        };
        // `queuing` and `running` may both fail.
        patch(writing, id, failed)?;
    }
    Ok(ids.len())
}

/// Deletes at most `most` finished rollouts beyond the retention limits.
pub(in crate::store) fn expire(
    writing: &mut Writing<'_>,
    keep_last: Option<usize>,
    keep_seconds: Option<f64>,
    most: usize,
) -> Result<usize, StoreError> {
    let mut ids = Vec::new();
    if let Some(seconds) = keep_seconds {
        let mut statement = writing.db.prepare_cached(
            "SELECT id FROM rollouts WHERE state >= 2 AND updated_at < ?1 ORDER BY seq LIMIT ?2",
        )?;
        let rows =
            statement.query_map(params![writing.now - seconds, most as i64], |row| row.get(0))?;
        ids = rows.collect::<rusqlite::Result<Vec<String>>>()?;
    }
    if let Some(last) = keep_last {
        let mut statement = writing.db.prepare_cached(
            "SELECT id FROM rollouts WHERE state >= 2 AND seq <= coalesce(
                 (SELECT seq FROM rollouts ORDER BY seq DESC LIMIT 1 OFFSET ?1), -1)
             ORDER BY seq LIMIT ?2",
        )?;
        let rows = statement.query_map([last as i64, most as i64], |row| row.get(0))?;
        ids.extend(rows.collect::<rusqlite::Result<Vec<String>>>()?);
    }
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(most);
    for id in &ids {
        delete(writing, id)?;
    }
    Ok(ids.len())
}
