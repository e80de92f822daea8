//! Appending events and the answers of model calls.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::packed::Packed;
use super::super::types::{Appended, NewEvent};
use super::super::writer::Writing;
use super::super::{Limits, StoreError};

/// An event with compressed data, ready to be written.
pub(in crate::store) struct Ready {
    event: NewEvent,
    data: Packed,
}

impl Ready {
    pub(in crate::store) fn new(mut event: NewEvent) -> Self {
        let data = Packed::new(std::mem::take(&mut event.data));
        Self { event, data }
    }
}

/// Appends an event and its model call's answers, if any.
pub(in crate::store) fn append(
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

/// The size of a rollout's events. Computed once, then cached in memory: a database column would
/// be one more page to write per event.
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

/// The size of the event's text, ids and log-probabilities.
pub(in crate::store) fn size(event: &NewEvent) -> usize {
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
