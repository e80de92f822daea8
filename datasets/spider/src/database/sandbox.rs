//! A connection on which a hostile query costs one bounded failure.
//!
//! Each of these would stop most attacks alone: a statement that is not one query of bounded
//! size is refused before it is prepared ([`super::guard`]); the file is opened read-only and
//! immutable, so nothing beside it is read or made; an authorizer allows reading only, and no
//! function that reaches outside the database or draws at random; the clock stands still
//! ([`super::clock`]); SQLite's own limits bound the sizes of statements, values and expressions;
//! a progress handler counts instructions and time.
//!
//! Some calls of SQLite take long or much memory between two calls of that handler: sorting, and
//! functions of two long strings. The bound of these is the process that the query runs in
//! ([`super::worker`]).

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rusqlite::ffi::Error;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, Statement};
use serde::{Deserialize, Serialize};

use super::limits::{Limits, QueryError};
use super::value::Value;
use super::{clock, guard};

/// Longest statement, in bytes.
pub const STATEMENT_BYTES: usize = 100_000;

/// Longest value, in bytes. The longest of Spider's databases is far below.
const VALUE_BYTES: i32 = 64 << 10;

/// Instructions between two checks of clock and counter. Few, because one instruction may
/// call a function that reads 64 KiB.
const INSTRUCTIONS_A_CHECK: u64 = 50;

/// Checks of the counter for one of the clock, which costs more than fifty instructions.
const CHECKS_A_CLOCK: u64 = 16;

/// Sizes beyond which SQLite refuses a statement or a value. `LIKE` and `instr` take time in
/// proportion to both their lengths.
const SQLITE_LIMITS: [(Limit, i32); 9] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES as i32),
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 0),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// Functions that reach outside the database, and those whose value is drawn: a score must
/// be the same each time.
const DENIED_FUNCTIONS: [&str; 8] = [
    "load_extension",
    "readfile",
    "writefile",
    "edit",
    "fts3_tokenizer",
    "random",
    "randomblob",
    "sqlite_log",
];

/// What a query gave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultSet {
    pub columns: Vec<String>,
    /// Each row has one value per column.
    pub rows: Vec<Vec<Value>>,
}

/// Opens `path` inside the sandbox.
///
/// # Errors
/// Where there is no such file, or SQLite refuses it.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    clock::register().map_err(|code| rusqlite::Error::SqliteFailure(Error::new(code), None))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(uri(path), flags, clock::VFS)?;
    for (limit, value) in SQLITE_LIMITS {
        connection.set_limit(limit, value)?;
    }
    // Files of sorted rows would grow as long as the query runs; memory is bounded.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.authorizer(Some(authorize))?;
    Ok(connection)
}

/// `immutable` keeps SQLite from looking for a journal and from locking. Every byte that
/// could mean something in a URI is escaped.
fn uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    if path.is_absolute() {
        uri.push_str("//");
    }
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri + "?mode=ro&immutable=1"
}

/// Lifts the authorizer for statements of our own.
pub(super) const NO_AUTHORIZER: Option<fn(AuthContext<'_>) -> Authorization> = None;

pub(super) fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Recursive | AuthAction::Read { .. } => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !DENIED_FUNCTIONS.iter().any(|name| name.eq_ignore_ascii_case(function_name)) =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// Why the progress handler stopped a query.
const RUNNING: u64 = 0;
const OUT_OF_INSTRUCTIONS: u64 = 1;
const OUT_OF_TIME: u64 = 2;

/// Runs the one statement of `sql` within `limits`; those of memory are the caller's.
///
/// # Errors
/// Whatever stops it; see [`QueryError`].
pub(super) fn run(
    connection: &Connection,
    sql: &str,
    limits: &Limits,
) -> Result<ResultSet, QueryError> {
    if sql.len() > STATEMENT_BYTES {
        return Err(QueryError::Bytes);
    }
    guard::check(sql)?;
    let stopped = Arc::new(AtomicU64::new(RUNNING));
    let (reason, started, time) = (Arc::clone(&stopped), Instant::now(), limits.time);
    let mut checks = limits.instructions / INSTRUCTIONS_A_CHECK;
    let watch = move || {
        if checks == 0 {
            reason.store(OUT_OF_INSTRUCTIONS, Ordering::Relaxed);
        } else if checks.is_multiple_of(CHECKS_A_CLOCK) && started.elapsed() > time {
            reason.store(OUT_OF_TIME, Ordering::Relaxed);
        }
        checks = checks.saturating_sub(1);
        reason.load(Ordering::Relaxed) != RUNNING
    };
    let as_error = |error: rusqlite::Error| match stopped.load(Ordering::Relaxed) {
        OUT_OF_INSTRUCTIONS => QueryError::Instructions(limits.instructions),
        OUT_OF_TIME => QueryError::Time(limits.time),
        _ => QueryError::within(&error, limits),
    };
    connection.progress_handler(INSTRUCTIONS_A_CHECK as i32, Some(watch)).map_err(as_error)?;
    let mut statement = connection.prepare(sql).map_err(as_error)?;
    if statement.column_count() == 0 || !statement.readonly() {
        return Err(QueryError::NotAQuery);
    }
    collect(&mut statement, limits, as_error)
}

fn collect(
    statement: &mut Statement<'_>,
    limits: &Limits,
    as_error: impl Fn(rusqlite::Error) -> QueryError,
) -> Result<ResultSet, QueryError> {
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut result = ResultSet { columns, rows: Vec::new() };
    let mut bytes = 0;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(&as_error)? {
        if result.rows.len() == limits.rows {
            return Err(QueryError::Rows(limits.rows));
        }
        let mut values = Vec::with_capacity(result.columns.len());
        for column in 0..result.columns.len() {
            let value = Value::read(row.get_ref(column).map_err(&as_error)?);
            bytes += value.bytes();
            values.push(value);
        }
        if bytes > limits.bytes {
            return Err(QueryError::Bytes);
        }
        result.rows.push(values);
    }
    Ok(result)
}
