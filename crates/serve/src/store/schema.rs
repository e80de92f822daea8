//! The database: tables, schema version, and connection setup.
//!
//! Rows refer to rollouts by number, not by id: an id that is deleted and created again is another
//! rollout. Token ids and log-probabilities are little-endian 32-bit words in blobs. Bodies are
//! stored as JSON text, so that reading an event back needs no parsing; long ones are compressed
//! (`packed`).

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;

/// Version of the tables; a reader refuses a newer one.
pub const SCHEMA: i64 = 1;

/// "LeyS" in SQLite's header, which distinguishes a store from another program's database.
const APPLICATION: i64 = 0x4c65_7953;

const TABLES: &str = "
CREATE TABLE rollouts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    input TEXT NOT NULL,
    data_id TEXT NOT NULL,
    is_train INTEGER NOT NULL,
    config TEXT NOT NULL,
    metadata TEXT NOT NULL,
    state INTEGER NOT NULL,
    k8s_job_name TEXT,
    last_attempt_id TEXT,
    error_message TEXT,
    version INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    -- Attempts begun by claims and retries; the next one's id.
    attempts INTEGER NOT NULL DEFAULT 0,
    claimable INTEGER NOT NULL,
    -- A trainer in the server's process owns it; it does not outlive that process.
    hosted INTEGER NOT NULL,
    worker TEXT,
    lease_until REAL
);
CREATE INDEX rollouts_by_state ON rollouts (state, seq);
CREATE INDEX rollouts_to_claim ON rollouts (seq) WHERE state = 0 AND claimable = 1;
CREATE INDEX rollouts_by_end ON rollouts (updated_at) WHERE state >= 2;
CREATE INDEX rollouts_by_lease ON rollouts (lease_until) WHERE lease_until IS NOT NULL;

-- The completion log. Nothing is ever deleted from it.
CREATE TABLE terminal (
    position INTEGER PRIMARY KEY,
    rollout INTEGER NOT NULL
);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    rollout INTEGER NOT NULL,
    attempt TEXT NOT NULL,
    type TEXT NOT NULL,
    timestamp REAL NOT NULL,
    -- JSON as text, or packed as a blob.
    data NOT NULL,
    -- What makes a repeated append the same event.
    key BLOB
);
CREATE INDEX events_by_rollout ON events (rollout);
CREATE UNIQUE INDEX events_by_key ON events (rollout, key) WHERE key IS NOT NULL;

-- One row a choice of a model call; its event has request and response.
CREATE TABLE calls (
    event INTEGER NOT NULL,
    choice INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    role TEXT,
    body BLOB NOT NULL,
    content TEXT NOT NULL,
    tool_calls TEXT NOT NULL,
    malformed_call TEXT,
    finish TEXT NOT NULL,
    stop_text TEXT,
    prompt_ids BLOB NOT NULL,
    response_ids BLOB NOT NULL,
    logprobs BLOB NOT NULL,
    cached_tokens INTEGER NOT NULL,
    policy_version INTEGER NOT NULL,
    constrained INTEGER NOT NULL,
    PRIMARY KEY (event, choice)
) WITHOUT ROWID;

CREATE TABLE models (
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (model, endpoint)
) WITHOUT ROWID;

-- Conversations of /v1/responses, for previous_response_id.
CREATE TABLE responses (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    items TEXT NOT NULL
);
";

/// Opens the write connection, creating the file if it does not exist.
///
/// # Errors
/// If the file is corrupt, another program's database, or of another version.
pub(super) fn open_writer(path: &Path, durable: bool) -> Result<Connection, StoreError> {
    let about = |error: rusqlite::Error| file_error(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(about)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(about)?;
    let tables: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(about)?;
    if tables == 0 {
        create(&db).map_err(about)?;
    }
    check(&db, path)?;
    // FULL syncs the WAL at every commit, so acknowledged writes survive a power failure. NORMAL
    // would sync only at checkpoints.
    let synchronous = if durable { "FULL" } else { "OFF" };
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 268435456;
         PRAGMA cache_size = -32768;
         PRAGMA temp_store = MEMORY;"
    ))
    .map_err(about)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Opens a read-only connection.
///
/// # Errors
/// As [`open_writer`].
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let about = |error: rusqlite::Error| file_error(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(about)?;
    db.busy_timeout(Duration::from_secs(10)).map_err(about)?;
    check(&db, path)?;
    db.execute_batch("PRAGMA query_only = 1; PRAGMA temp_store = MEMORY;").map_err(about)?;
    Ok(db)
}

fn create(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         BEGIN IMMEDIATE;
         {TABLES}
         PRAGMA application_id = {APPLICATION};
         PRAGMA user_version = {SCHEMA};
         COMMIT;"
    ))
}

fn check(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let about = |error: rusqlite::Error| file_error(path, &error);
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let application: i64 = pragma("application_id").map_err(about)?;
    let version: i64 = pragma("user_version").map_err(about)?;
    let refuse = |what: String| Err(StoreError::File { path: path.to_owned(), what });
    if application != APPLICATION {
        return refuse("this is not a store of rollouts but another program's database".into());
    }
    if version != SCHEMA {
        return refuse(format!(
            "the store has schema {version} and this version of Leyden reads schema {SCHEMA}"
        ));
    }
    Ok(())
}

/// Converts an SQLite error to a message about the file.
pub(super) fn file_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    let what = match error.sqlite_error_code() {
        Some(Code::NotADatabase) => "this is not a store of rollouts (not an SQLite file)".into(),
        Some(Code::DatabaseCorrupt) => {
            format!("the store is damaged ({error}); restore it from a copy, or move it away")
        }
        Some(Code::CannotOpen) => "the store cannot be opened: no such file or folder".into(),
        _ => format!("the store cannot be opened: {error}"),
    };
    StoreError::File { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With NORMAL, a commit would be synced only by the next checkpoint, and an acknowledged
    /// write could be lost in a power failure.
    #[test]
    fn every_commit_is_synced() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = open_writer(&folder.path().join("x"), true).expect("a file");
        let mode: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("one");
        let level: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0)).expect("one");
        assert_eq!((mode.as_str(), level), ("wal", 2));
    }
}
