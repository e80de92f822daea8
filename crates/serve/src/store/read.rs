//! Read queries of the store, for the server and `leyden rollouts`.
//!
//! Functions take a connection. [`Reading`] opens one on a file, also while a server writes to it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::StoreError;
use super::packed::unpack;
use super::row::{ROLLOUT, rollout_of, state_of};
use super::schema::open_reader;
use super::types::{
    DEFAULT_ATTEMPT, ModelServer, RolloutState, StoredAnswer, StoredEvent, StoredRollout,
    TerminalItem, TerminalPage,
};

/// Upper bound of an event's length: SQLite's row limit.
const LONGEST: usize = 1 << 30;

/// A store opened for reading.
#[derive(Debug)]
pub struct Reading {
    db: Connection,
}

/// One answer of one model call: a row of an export.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRow {
    pub rollout_id: String,
    pub attempt_id: String,
    /// Position of the call's event in the store; ascending in time.
    pub event: i64,
    pub choice: u64,
    /// Seconds since 1970.
    pub timestamp: f64,
    pub endpoint: String,
    pub role: Option<String>,
    pub answer: StoredAnswer,
}

/// Selects rollouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Empty means all.
    pub states: Vec<RolloutState>,
    pub is_train: Option<bool>,
    /// Maximum number of rollouts, oldest first; `None` is unlimited.
    pub limit: Option<usize>,
}

impl Reading {
    /// Opens the store at `path`.
    ///
    /// # Errors
    /// If the file is missing, corrupt, another program's database, or of another version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: open_reader(path)? })
    }

    /// The rollouts that match `filter`, oldest first.
    pub fn rollouts(&self, filter: &Filter) -> Result<Vec<StoredRollout>, StoreError> {
        rollouts(&self.db, filter)
    }

    /// The rollout with this id.
    pub fn rollout(&self, id: &str) -> Result<Option<StoredRollout>, StoreError> {
        rollout(&self.db, id)
    }

    /// The events of a rollout's current attempt, or of all attempts.
    pub fn events(&self, id: &str, every_attempt: bool) -> Result<Vec<StoredEvent>, StoreError> {
        if !every_attempt {
            return events(&self.db, id, None);
        }
        let mut statement = self.db.prepare_cached(
            "SELECT seq, type, attempt, timestamp, data FROM events
             WHERE rollout = (SELECT seq FROM rollouts WHERE id = ?1) ORDER BY seq",
        )?;
        let rows = statement.query_map([id], event_of)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The calls of the current attempt, in order, with ids and log-probabilities.
    pub fn calls(&self, id: &str) -> Result<Vec<CallRow>, StoreError> {
        calls(&self.db, id)
    }

    /// The reward of the current attempt: its last numeric one. `None` is missing, not zero.
    pub fn reward(&self, id: &str) -> Result<Option<f64>, StoreError> {
        Ok(events(&self.db, id, Some("reward"))?.iter().rev().find_map(|event| {
            let data: serde_json::Value = serde_json::from_str(&event.data).ok()?;
            data.get("value")?.as_f64()
        }))
    }

    /// The number of events per attempt and type: attempt, type, count.
    pub fn event_counts(&self, id: &str) -> Result<Vec<(String, String, u64)>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT attempt, type, count(*) FROM events
             WHERE rollout = (SELECT seq FROM rollouts WHERE id = ?1)
             GROUP BY attempt, type ORDER BY min(seq)",
        )?;
        let rows = statement.query_map([id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs()))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

pub(super) fn rollout(db: &Connection, id: &str) -> Result<Option<StoredRollout>, StoreError> {
    Ok(super::row::find(db, id)?.map(|row| row.rollout))
}

pub(super) fn rollouts(db: &Connection, filter: &Filter) -> Result<Vec<StoredRollout>, StoreError> {
    let states = match filter.states.as_slice() {
        [] => &RolloutState::ALL[..],
        some => some,
    };
    let marks = vec!["?"; states.len()].join(", ");
    let train = match filter.is_train {
        None => "",
        Some(true) => "AND is_train = 1",
        Some(false) => "AND is_train = 0",
    };
    let sql = format!(
        "SELECT {ROLLOUT} FROM rollouts WHERE state IN ({marks}) {train} ORDER BY seq LIMIT ?"
    );
    let limit = filter.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let values = states.iter().map(|state| *state as i64).chain([limit]);
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| Ok(rollout_of(row)?.rollout))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn terminal(
    db: &Connection,
    after: u64,
    limit: u64,
) -> Result<TerminalPage, StoreError> {
    let (after, limit) = (after.min(1 << 62), limit.min(1 << 32));
    let total: i64 = db
        .prepare_cached("SELECT coalesce(max(position) + 1, 0) FROM terminal")?
        .query_row([], |row| row.get(0))?;
    let mut statement = db.prepare_cached(
        "SELECT id, state, data_id, is_train FROM terminal
         LEFT JOIN rollouts ON rollouts.seq = terminal.rollout
         WHERE position >= ?1 AND position < ?2 ORDER BY position",
    )?;
    let mut rows = statement.query([after.cast_signed(), (after + limit).cast_signed()])?;
    let (mut items, mut seen) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        seen += 1;
        if let Some(rollout_id) = row.get::<_, Option<String>>(0)? {
            let state = state_of(row.get(1)?)?;
            let (data_id, is_train) = (row.get(2)?, row.get(3)?);
            items.push(TerminalItem { rollout_id, state, data_id, is_train });
        }
    }
    Ok(TerminalPage { items, next_after: after + seen, total: total.unsigned_abs() })
}

/// The rollout's row and its current attempt.
fn current(db: &Connection, id: &str) -> Result<(i64, String), StoreError> {
    db.prepare_cached("SELECT seq, coalesce(last_attempt_id, ?2) FROM rollouts WHERE id = ?1")?
        .query_row([id, DEFAULT_ATTEMPT], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| StoreError::UnknownRollout(id.to_owned()))
}

fn event_of(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        seq: row.get(0)?,
        event_type: row.get(1)?,
        attempt_id: row.get(2)?,
        timestamp: row.get(3)?,
        data: unpack(row.get_ref(4)?, LONGEST)?,
    })
}

/// Events of the current attempt, of one type or all.
pub(super) fn events(
    db: &Connection,
    id: &str,
    event_type: Option<&str>,
) -> Result<Vec<StoredEvent>, StoreError> {
    let (seq, attempt) = current(db, id)?;
    let mut statement = db.prepare_cached(
        "SELECT seq, type, attempt, timestamp, data FROM events
         WHERE rollout = ?1 AND attempt = ?2 AND (?3 IS NULL OR type = ?3) ORDER BY seq",
    )?;
    let rows = statement.query_map(params![seq, attempt, event_type], event_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The attempts that have events, in order of their first event.
pub(super) fn attempts(db: &Connection, id: &str) -> Result<Vec<String>, StoreError> {
    let (seq, _) = current(db, id)?;
    let mut statement = db.prepare_cached(
        "SELECT attempt FROM events WHERE rollout = ?1 GROUP BY attempt ORDER BY min(seq)",
    )?;
    let rows = statement.query_map([seq], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

const CALL: &str = "event, choice, attempt, timestamp, endpoint, role, content, tool_calls, \
     malformed_call, finish, stop_text, prompt_ids, response_ids, logprobs, cached_tokens, \
     policy_version, constrained, body";

fn call_of(row: &Row<'_>, rollout_id: &str) -> rusqlite::Result<CallRow> {
    let answer = StoredAnswer {
        content: row.get(6)?,
        tool_calls: row.get(7)?,
        malformed_call: row.get(8)?,
        finish: row.get(9)?,
        stop_text: row.get(10)?,
        prompt_ids: words(row, 11, u32::from_le_bytes)?,
        response_ids: words(row, 12, u32::from_le_bytes)?,
        logprobs: words(row, 13, f32::from_le_bytes)?,
        cached_tokens: row.get::<_, i64>(14)?.unsigned_abs(),
        policy_version: row.get::<_, i64>(15)?.unsigned_abs(),
        constrained: row.get(16)?,
    };
    Ok(CallRow {
        rollout_id: rollout_id.to_owned(),
        attempt_id: row.get(2)?,
        event: row.get(0)?,
        choice: row.get::<_, i64>(1)?.unsigned_abs(),
        timestamp: row.get(3)?,
        endpoint: row.get(4)?,
        role: row.get(5)?,
        answer,
    })
}

fn words<T>(row: &Row<'_>, column: usize, word: fn([u8; 4]) -> T) -> rusqlite::Result<Vec<T>> {
    let (words, _) = row.get_ref(column)?.as_blob()?.as_chunks::<4>();
    Ok(words.iter().copied().map(word).collect())
}

pub(super) fn calls(db: &Connection, id: &str) -> Result<Vec<CallRow>, StoreError> {
    let (seq, attempt) = current(db, id)?;
    let sql = format!(
        "SELECT {CALL} FROM events JOIN calls ON calls.event = events.seq
         WHERE rollout = ?1 AND attempt = ?2 ORDER BY event, choice"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![seq, attempt], |row| call_of(row, id))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A recorded model call, for a retry.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedCall {
    pub event: i64,
    /// Seconds since 1970.
    pub timestamp: f64,
    /// The event's data: request, response, status.
    pub data: String,
    /// Digest of endpoint and body, if it has answers.
    pub body: Option<[u8; 16]>,
    pub answers: Vec<StoredAnswer>,
}

/// The key by which a retry finds the original call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeated {
    /// By its event's key.
    Key(Vec<u8>),
    /// By the digest of its body.
    Body([u8; 16]),
    /// By its event.
    Event(i64),
}

/// The recorded calls of an attempt that match `repeated`, oldest first.
pub(super) fn recorded(
    db: &Connection,
    id: &str,
    attempt: &str,
    repeated: &Repeated,
) -> Result<Vec<RecordedCall>, StoreError> {
    let (seq, _) = current(db, id)?;
    let select = "SELECT seq, timestamp, data FROM events WHERE rollout = ?1 AND attempt = ?2";
    let of = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, unpack(row.get_ref(2)?, LONGEST)?));
    let found: Vec<(i64, f64, String)> = match repeated {
        Repeated::Key(key) => db
            .prepare_cached(&format!("{select} AND key = ?3"))?
            .query_map(params![seq, attempt, key], of)?
            .collect::<rusqlite::Result<_>>()?,
        Repeated::Event(event) => db
            .prepare_cached(&format!("{select} AND seq = ?3"))?
            .query_map(params![seq, attempt, event], of)?
            .collect::<rusqlite::Result<_>>()?,
        Repeated::Body(body) => {
            let sql = format!(
                "{select} AND EXISTS (SELECT 1 FROM calls
                     WHERE event = seq AND choice = 0 AND body = ?3) ORDER BY seq"
            );
            db.prepare_cached(&sql)?
                .query_map(params![seq, attempt, body], of)?
                .collect::<rusqlite::Result<_>>()?
        }
    };
    let sql = format!(
        "SELECT {CALL} FROM events JOIN calls ON calls.event = events.seq
         WHERE event = ?1 ORDER BY choice"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut recorded = Vec::with_capacity(found.len());
    for (event, timestamp, data) in found {
        let rows = statement.query_map([event], |row| {
            Ok((call_of(row, id)?.answer, row.get::<_, [u8; 16]>(17)?))
        })?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let body = rows.first().map(|(_, body)| *body);
        let answers = rows.into_iter().map(|(answer, _)| answer).collect();
        recorded.push(RecordedCall { event, timestamp, data, body, answers });
    }
    Ok(recorded)
}

pub(super) fn models(db: &Connection) -> Result<Vec<ModelServer>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT model, endpoint, version FROM models ORDER BY model, endpoint")?;
    let rows = statement.query_map([], |row| {
        Ok(ModelServer { model: row.get(0)?, endpoint: row.get(1)?, version: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn response(db: &Connection, id: &str) -> Result<Option<String>, StoreError> {
    let mut statement = db.prepare_cached("SELECT items FROM responses WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| row.get(0)).optional()?)
}
