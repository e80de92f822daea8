//! Limits of one query, and the reasons for which it gives no result.

use std::time::Duration;

use rusqlite::ErrorCode;
use serde::{Deserialize, Serialize};

/// Bounds of one query.
///
/// Instructions are counted by SQLite's virtual machine and are the bound that decides: they
/// do not depend on the machine or its load, so a score does not either. The time is a second
/// bound, for single instructions that take long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Instructions of SQLite's virtual machine, counted in thousands.
    pub instructions: u64,
    pub time: Duration,
    pub rows: usize,
    /// Bytes of all cells of the result.
    pub bytes: usize,
    /// Bytes of SQLite's heap, beyond what earlier queries left there. Workers enforce it; a
    /// query in this process has no such bound.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instructions: 50_000_000,
            time: Duration::from_secs(20),
            rows: 100_000,
            bytes: 32 << 20,
            memory: 256 << 20,
        }
    }
}

/// Why a query gave no result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum QueryError {
    /// Empty, a comment, or a statement that gives no rows.
    #[error("the statement is not a query")]
    NotAQuery,
    /// SQLite refuses it, or it failed while running.
    #[error("{0}")]
    Sql(String),
    /// It would write, attach, change settings, or call a function that is not allowed.
    #[error("only reading this database is allowed: {0}")]
    Denied(String),
    /// Nested too deep, or of common table expressions that stand for too many tables.
    #[error("the query is too complex: {0}")]
    Complex(String),
    #[error("stopped after {0} instructions")]
    Instructions(u64),
    #[error("stopped after {} seconds", .0.as_secs_f64())]
    Time(Duration),
    #[error("the result has more than {0} rows")]
    Rows(usize),
    #[error("the result or a value in it is too large")]
    Bytes,
    #[error("the query needs more than {} MiB of memory", .0 >> 20)]
    Memory(usize),
    /// Its process ended, twice, before it gave a result.
    #[error("the query ended the process that ran it ({0})")]
    Crashed(String),
    /// Not the query's fault: the database itself cannot be read.
    #[error("the database cannot be read: {0}")]
    Database(String),
}

impl QueryError {
    /// A short name of the kind of error, by which signals are counted.
    pub fn class(&self) -> &'static str {
        match self {
            Self::NotAQuery => "not_a_query",
            Self::Denied(_) => "denied",
            Self::Complex(_)
            | Self::Instructions(_)
            | Self::Time(_)
            | Self::Rows(_)
            | Self::Bytes
            | Self::Memory(_)
            | Self::Crashed(_) => "limit",
            Self::Database(_) => "database",
            Self::Sql(message) => {
                let starts = |text: &str| message.starts_with(text);
                if starts("no such column") || starts("ambiguous column") {
                    "column"
                } else if starts("no such table") {
                    "table"
                } else if starts("no such function") || starts("wrong number of arguments") {
                    "function"
                } else if message.contains("syntax error") || starts("incomplete input") {
                    "syntax"
                } else {
                    "other"
                }
            }
        }
    }

    /// The reason behind an error of SQLite under these limits.
    pub(super) fn within(error: &rusqlite::Error, limits: &Limits) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OutOfMemory) => Self::Memory(limits.memory),
            _ => Self::of(error),
        }
    }

    pub(super) fn of(error: &rusqlite::Error) -> Self {
        let message = match error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            other => other.to_string(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::AuthorizationForStatementDenied) => Self::Denied(message),
            Some(ErrorCode::TooBig) => Self::Bytes,
            Some(
                ErrorCode::NotADatabase
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure,
            ) => Self::Database(message),
            _ => Self::Sql(message),
        }
    }
}
