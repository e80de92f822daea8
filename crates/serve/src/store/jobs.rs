//! What the writer does, in SQL. Every function runs inside a group's transaction; a refusal
//! comes before the first change.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::index::{Brief, Effect};
use super::packed::Packed;
use super::types::{
    Appended, Claim, ModelServer, NewEvent, NewRollout, Requeued, RolloutState, RolloutStatus,
    StatusPatch, StoredRollout,
};
use super::writer::Writing;
use super::{Limits, StoreError};

/// The columns of [`rollout_of`], in its order.
pub(super) const ROLLOUT: &str = "id, input, is_train, config, metadata, state, k8s_job_name, \
     last_attempt_id, error_message, version, created_at, updated_at, seq, hosted, attempts, \
     worker, lease_until";

/// A row with what only the writer needs of it.
pub(super) struct RolloutRow {
    pub(super) rollout: StoredRollout,
    pub(super) seq: i64,
    hosted: bool,
    attempts: i64,
    worker: Option<String>,
    lease_until: Option<f64>,
}

impl RolloutRow {
    fn brief(&self) -> Brief {
        let status = &self.rollout.status;
        Brief {
            seq: self.seq,
            state: status.state,
            last_attempt_id: status.last_attempt_id.as_deref().map(Into::into),
            is_train: self.rollout.is_train,
            hosted: self.hosted,
        }
    }
}

pub(super) fn state_of(number: i64) -> rusqlite::Result<RolloutState> {
    usize::try_from(number)
        .ok()
        .and_then(|number| RolloutState::ALL.get(number).copied())
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

pub(super) fn rollout_of(row: &Row<'_>) -> rusqlite::Result<RolloutRow> {
    let status = RolloutStatus {
        state: state_of(row.get(5)?)?,
        k8s_job_name: row.get(6)?,
        last_attempt_id: row.get(7)?,
        error_message: row.get(8)?,
        version: row.get::<_, i64>(9)?.unsigned_abs(),
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
    };
    let rollout = StoredRollout {
        id: row.get(0)?,
        input: json(row, 1)?,
        is_train: row.get(2)?,
        config: json(row, 3)?,
        metadata: json(row, 4)?,
        status,
    };
    Ok(RolloutRow {
        rollout,
        seq: row.get(12)?,
        hosted: row.get(13)?,
        attempts: row.get(14)?,
        worker: row.get(15)?,
        lease_until: row.get(16)?,
    })
}

/// The rollout of this id.
pub(super) fn find(db: &Connection, id: &str) -> Result<Option<RolloutRow>, StoreError> {
    let sql = format!("SELECT {ROLLOUT} FROM rollouts WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id], rollout_of).optional()?)
}

fn known(db: &Connection, id: &str) -> Result<RolloutRow, StoreError> {
    find(db, id)?.ok_or_else(|| StoreError::UnknownRollout(id.to_owned()))
}

/// `input.data_id`, else `input.instance_id`, as text.
fn data_id(input: &Value) -> String {
    let named = |key: &str| match input.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.as_f64() != Some(0.0) => Some(number.to_string()),
        _ => None,
    };
    named("data_id").or_else(|| named("instance_id")).unwrap_or_default()
}

/// Creates what does not exist; says of each whether it did.
pub(super) fn create(
    writing: &mut Writing<'_>,
    all: Vec<NewRollout>,
) -> Result<Vec<(StoredRollout, bool)>, StoreError> {
    let mut created = Vec::with_capacity(all.len());
    for new in all {
        let id = new.id.clone().unwrap_or_else(super::random_id);
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

/// Writes a changed status back, and the completion log where it has become final.
fn save(writing: &mut Writing<'_>, row: &mut RolloutRow) -> Result<(), StoreError> {
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

/// Changes a status as a client asks.
pub(super) fn patch(
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

/// Deletes a rollout and its events; one that is not there is no error.
pub(super) fn delete(writing: &mut Writing<'_>, id: &str) -> Result<(), StoreError> {
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

/// An event in the form in which it is written.
pub(super) struct Ready {
    event: NewEvent,
    data: Packed,
}

impl Ready {
    pub(super) fn new(mut event: NewEvent) -> Self {
        let data = Packed::new(std::mem::take(&mut event.data));
        Self { event, data }
    }
}

/// Appends an event, and the answers of a model call with it.
pub(super) fn append(
    writing: &mut Writing<'_>,
    limits: &Limits,
    ready: &Ready,
) -> Result<Appended, StoreError> {
    let (db, event) = (writing.db, &ready.event);
    let seq: i64 = db
        .prepare_cached("SELECT seq FROM rollouts WHERE id = ?1")?
        .query_row([&event.rollout_id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| StoreError::UnknownRollout(event.rollout_id.clone()))?;
    if let Some(key) = &event.key
        && let Some(appended) = by_key(db, seq, key)?
    {
        return Ok(appended);
    }
    let bytes = ready.data.len() + size(event);
    let held = held(writing, seq)?;
    let total = *held + bytes as u64;
    if total > limits.max_rollout_bytes {
        let (id, limit) = (event.rollout_id.clone(), limits.max_rollout_bytes);
        return Err(StoreError::RolloutTooLarge { id, bytes: total, limit });
    }
    *held = total;
    let number = db
        .prepare_cached(
            "INSERT INTO events (rollout, attempt, type, timestamp, data, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .insert(params![
            seq,
            event.attempt_id,
            event.event_type,
            writing.now,
            ready.data,
            event.key
        ])?;
    insert_call(db, number, event)?;
    *writing.bytes += bytes;
    Ok(Appended { seq: number, timestamp: writing.now, duplicate: false })
}

/// The bytes of a rollout's events. Counted once, then kept in memory: a column of them would
/// be one more page to write with every event.
fn held<'a>(writing: &'a mut Writing<'_>, seq: i64) -> Result<&'a mut u64, StoreError> {
    use std::collections::hash_map::Entry;
    match writing.held.entry(seq) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(unknown) => {
            let bytes: i64 = writing
                .db
                .prepare_cached(
                    "SELECT coalesce(sum(octet_length(data)
                         + coalesce(octet_length(content) + octet_length(tool_calls)
                         + octet_length(prompt_ids) + octet_length(response_ids)
                         + octet_length(logprobs), 0)), 0)
                     FROM events LEFT JOIN calls ON calls.event = events.seq
                     WHERE rollout = ?1",
                )?
                .query_row([seq], |row| row.get(0))?;
            Ok(unknown.insert(bytes.unsigned_abs()))
        }
    }
}

fn by_key(db: &Connection, rollout: i64, key: &[u8]) -> Result<Option<Appended>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT seq, timestamp FROM events WHERE rollout = ?1 AND key = ?2")?;
    let found = statement.query_row(params![rollout, key], |row| {
        Ok(Appended { seq: row.get(0)?, timestamp: row.get(1)?, duplicate: true })
    });
    Ok(found.optional()?)
}

/// Bytes of text, ids and numbers.
pub(super) fn size(event: &NewEvent) -> usize {
    let answers = event.call.iter().flat_map(|call| &call.answers);
    let call: usize = answers
        .map(|answer| {
            answer.content.len()
                + answer.tool_calls.len()
                + 4 * (answer.prompt_ids.len() + 2 * answer.response_ids.len())
        })
        .sum();
    event.data.len() + call
}

fn insert_call(db: &Connection, event: i64, new: &NewEvent) -> Result<(), StoreError> {
    let Some(call) = &new.call else { return Ok(()) };
    let mut statement = db.prepare_cached(
        "INSERT INTO calls (event, choice, endpoint, role, body, content, tool_calls,
             malformed_call, finish, stop_text, prompt_ids, response_ids, logprobs, cached_tokens,
             policy_version, constrained)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
             ?16)",
    )?;
    for (choice, answer) in call.answers.iter().enumerate() {
        statement.execute(params![
            event,
            choice as i64,
            call.endpoint,
            call.role,
            call.body,
            answer.content,
            answer.tool_calls,
            answer.malformed_call,
            answer.finish,
            answer.stop_text,
            words(answer.prompt_ids.iter().map(|id| id.to_le_bytes())),
            words(answer.response_ids.iter().map(|id| id.to_le_bytes())),
            words(answer.logprobs.iter().map(|logprob| logprob.to_le_bytes())),
            answer.cached_tokens.cast_signed(),
            answer.policy_version.cast_signed(),
            answer.constrained,
        ])?;
    }
    Ok(())
}

fn words(words: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    words.flatten().collect()
}

/// Lends queued rollouts, oldest first, each as a new attempt.
pub(super) fn claim(
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

/// Begins a further attempt of a rollout that is not over. With `requeue`, the next claim
/// begins it, and until then no attempt counts; the id is then empty.
pub(super) fn next_attempt(
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
    // One that was never claimed is at its attempt "0".
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
        "the rollout is over"
    } else if status.attempt() != attempt_id || row.lease_until.is_none() {
        "its lease ran out, or it was taken back"
    } else if row.worker.as_deref() != Some(worker) {
        "another worker has it"
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

/// Prolongs a lease; returns its new end.
pub(super) fn heartbeat(
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
        .prepare_cached("UPDATE rollouts SET lease_until = ?2 WHERE seq = ?1")?
        .execute(params![row.seq, until])?;
    Ok(until)
}

/// Gives a lease back. A hosted rollout then waits for its trainer's verdict, any other one
/// ends in `state`.
pub(super) fn end_lease(
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

/// Queues rollouts again whose worker fell silent.
pub(super) fn requeue_expired(writing: &mut Writing<'_>) -> Result<Vec<Requeued>, StoreError> {
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

/// Fails the rollouts of trainers that ended with an earlier process.
pub(super) fn fail_orphans(writing: &mut Writing<'_>) -> Result<usize, StoreError> {
    let ids = writing
        .db
        .prepare("SELECT id FROM rollouts WHERE hosted = 1 AND state < 2")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for id in &ids {
        let failed = StatusPatch {
            state: Some(RolloutState::Failed),
            error_message: Some(Some("the process of its trainer ended".into())),
            ..StatusPatch::default()
        };
        // `queuing` and `running` may both fail.
        patch(writing, id, failed)?;
    }
    Ok(ids.len())
}

/// Deletes finished rollouts that retention lets go, at most `most` of them.
pub(super) fn expire(
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

/// Registers model servers; one of the same model and endpoint is replaced.
pub(super) fn put_models(
    writing: &mut Writing<'_>,
    models: &[ModelServer],
) -> Result<(), StoreError> {
    let mut statement = writing.db.prepare_cached(
        "INSERT INTO models (model, endpoint, version) VALUES (?1, ?2, ?3)
         ON CONFLICT (model, endpoint) DO UPDATE SET version = excluded.version",
    )?;
    for server in models {
        statement.execute(params![server.model, server.endpoint, server.version])?;
    }
    Ok(())
}

pub(super) fn clear_models(writing: &mut Writing<'_>) -> Result<(), StoreError> {
    writing.db.prepare_cached("DELETE FROM models")?.execute([])?;
    Ok(())
}

/// Keeps a conversation under a response's id, and the last `most` conversations.
pub(super) fn keep_response(
    writing: &mut Writing<'_>,
    id: &str,
    items: &str,
    most: usize,
) -> Result<(), StoreError> {
    let db = writing.db;
    let seq = db
        .prepare_cached("INSERT OR REPLACE INTO responses (id, items) VALUES (?1, ?2)")?
        .insert(params![id, items])?;
    let oldest = seq.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
    db.prepare_cached("DELETE FROM responses WHERE seq <= ?1")?.execute([oldest])?;
    *writing.bytes += items.len();
    Ok(())
}
