//! One SQLite file, opened so that a hostile query costs one bounded failure.
//!
//! Five walls, each of which would do against most attacks: a statement that is not one query of
//! bounded size is refused before it is prepared ([`super::guard`]); the file is opened read-only and
//! immutable (nothing beside it is read or made); an authorizer lets only reads through, and
//! with them no function that reaches outside or draws at random; SQLite's own limits bound
//! statement, value and expression sizes; a progress handler counts instructions and time.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, Statement};

use super::guard;
use super::limits::{Limits, QueryError};
use super::value::Value;

/// Longest statement, in bytes.
pub const STATEMENT_BYTES: usize = 100_000;

/// Instructions between two looks at clock and counter.
const INSTRUCTIONS_A_LOOK: u64 = 1_000;

/// Sizes beyond which SQLite refuses a statement. The longest value of Spider's databases
/// is far below a megabyte; parameters have no values here.
const SQLITE_LIMITS: [(Limit, i32); 9] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES as i32),
    (Limit::SQLITE_LIMIT_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResultSet {
    pub columns: Vec<String>,
    /// Each row has one value per column.
    pub rows: Vec<Vec<Value>>,
}

/// A database file and its idle connections. Connections are made as threads need them and
/// kept: opening one costs more than most queries.
#[derive(Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl DatabaseFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the one statement of `sql` within `limits`.
    ///
    /// # Errors
    /// Whatever stops it; see [`QueryError`].
    pub fn query(&self, sql: &str, limits: &Limits) -> Result<ResultSet, QueryError> {
        self.with_connection(|connection| run(connection, sql, limits))
    }

    /// Lends an idle connection, or a new one, to `work`.
    fn with_connection<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let idle = || self.idle.lock().unwrap_or_else(|e| e.into_inner());
        let kept = idle().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open(&self.path).map_err(|error| QueryError::Database(error.to_string()))?,
        };
        let result = work(&connection);
        idle().push(connection);
        result
    }

    /// Tables in the order of their making with their columns and declarations.
    pub(super) fn tables(&self) -> Result<Vec<TableInfo>, QueryError> {
        self.with_connection(|connection| {
            // The authorizer is lifted for these statements of our own.
            connection.authorizer(NO_AUTHORIZER).map_err(|e| QueryError::of(&e))?;
            let tables = read_tables(connection);
            connection.authorizer(Some(authorize)).map_err(|e| QueryError::of(&e))?;
            tables.map_err(|error| match QueryError::of(&error) {
                QueryError::Database(what) => QueryError::Database(what),
                other => QueryError::Database(other.to_string()),
            })
        })
    }
}

/// A table as the file declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableInfo {
    pub name: String,
    /// The `CREATE TABLE` statement.
    pub sql: String,
    pub columns: Vec<String>,
    /// Foreign keys: own column, other table, its column if named.
    pub references: Vec<(String, String, Option<String>)>,
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path), flags)?;
    for (limit, value) in SQLITE_LIMITS {
        connection.set_limit(limit, value)?;
    }
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

const NO_AUTHORIZER: Option<fn(AuthContext<'_>) -> Authorization> = None;

fn authorize(context: AuthContext<'_>) -> Authorization {
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

fn run(connection: &Connection, sql: &str, limits: &Limits) -> Result<ResultSet, QueryError> {
    if sql.len() > STATEMENT_BYTES {
        return Err(QueryError::Bytes);
    }
    guard::check(sql)?;
    let stopped = Arc::new(AtomicU64::new(RUNNING));
    let (reason, started, time) = (Arc::clone(&stopped), Instant::now(), limits.time);
    let mut looks = limits.instructions / INSTRUCTIONS_A_LOOK;
    let watch = move || {
        if looks == 0 {
            reason.store(OUT_OF_INSTRUCTIONS, Ordering::Relaxed);
        } else if started.elapsed() > time {
            reason.store(OUT_OF_TIME, Ordering::Relaxed);
        }
        looks = looks.saturating_sub(1);
        reason.load(Ordering::Relaxed) != RUNNING
    };
    let told = |error: rusqlite::Error| match stopped.load(Ordering::Relaxed) {
        OUT_OF_INSTRUCTIONS => QueryError::Instructions(limits.instructions),
        OUT_OF_TIME => QueryError::Time(limits.time),
        _ => QueryError::of(&error),
    };
    connection.progress_handler(INSTRUCTIONS_A_LOOK as i32, Some(watch)).map_err(told)?;
    let mut statement = connection.prepare(sql).map_err(told)?;
    if statement.column_count() == 0 || !statement.readonly() {
        return Err(QueryError::NotAQuery);
    }
    collect(&mut statement, limits, told)
}

fn collect(
    statement: &mut Statement<'_>,
    limits: &Limits,
    told: impl Fn(rusqlite::Error) -> QueryError,
) -> Result<ResultSet, QueryError> {
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut result = ResultSet { columns, rows: Vec::new() };
    let mut bytes = 0;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(&told)? {
        if result.rows.len() == limits.rows {
            return Err(QueryError::Rows(limits.rows));
        }
        let mut values = Vec::with_capacity(result.columns.len());
        for column in 0..result.columns.len() {
            let value = Value::read(row.get_ref(column).map_err(&told)?);
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

fn read_tables(connection: &Connection) -> rusqlite::Result<Vec<TableInfo>> {
    let names: Vec<(String, String)> = connection
        .prepare("SELECT name, coalesce(sql, '') FROM sqlite_master WHERE type = 'table'")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    names
        .into_iter()
        .map(|(name, sql)| {
            let quoted = name.replace('"', "\"\"");
            let columns = connection
                .prepare(&format!("PRAGMA table_info(\"{quoted}\")"))?
                .query_map([], |row| row.get("name"))?
                .collect::<rusqlite::Result<_>>()?;
            let references = connection
                .prepare(&format!("PRAGMA foreign_key_list(\"{quoted}\")"))?
                .query_map([], |row| Ok((row.get("from")?, row.get("table")?, row.get("to")?)))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(TableInfo { name, sql, columns, references })
        })
        .collect()
}
