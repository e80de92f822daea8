//! A rollout's row, shared by the writer and all readers.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};

use super::StoreError;
use super::index::Brief;
use super::types::{RolloutState, RolloutStatus, StoredRollout};

/// The columns of [`rollout_of`], in its order.
pub(super) const ROLLOUT: &str = "id, input, is_train, config, metadata, state, k8s_job_name, \
     last_attempt_id, error_message, version, created_at, updated_at, seq, hosted, attempts, \
     worker, lease_until";

/// A row with the columns that only the writer needs.
pub(super) struct RolloutRow {
    pub(super) rollout: StoredRollout,
    pub(super) seq: i64,
    pub(super) hosted: bool,
    pub(super) attempts: i64,
    pub(super) worker: Option<String>,
    pub(super) lease_until: Option<f64>,
}

impl RolloutRow {
    pub(super) fn brief(&self) -> Brief {
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

/// The rollout with this id.
pub(super) fn find(db: &Connection, id: &str) -> Result<Option<RolloutRow>, StoreError> {
    let sql = format!("SELECT {ROLLOUT} FROM rollouts WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id], rollout_of).optional()?)
}

/// Like [`find`], but a missing rollout is an error.
pub(super) fn known(db: &Connection, id: &str) -> Result<RolloutRow, StoreError> {
    find(db, id)?.ok_or_else(|| StoreError::UnknownRollout(id.to_owned()))
}
