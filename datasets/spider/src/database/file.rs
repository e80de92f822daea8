//! One SQLite file: queries on it, in this process or in a worker, and its declarations.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::check::{Check, Checked, check};
use super::limits::{Limits, QueryError};
use super::sandbox::{NO_AUTHORIZER, ResultSet, authorize, open, run};
use super::worker::Workers;

/// A database file with the workers that query it. Without workers it is queried in this process,
/// over connections that are kept: opening one costs more than most queries.
#[derive(Debug)]
pub struct DatabaseFile {
    path: PathBuf,
    workers: Option<Arc<Workers>>,
    idle: Mutex<Vec<Connection>>,
}

impl DatabaseFile {
    pub(super) fn new(path: PathBuf, workers: Option<Arc<Workers>>) -> Self {
        Self { path, workers, idle: Mutex::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the one statement of `sql` within `limits`.
    ///
    /// # Errors
    /// Whatever stops it; see [`QueryError`].
    pub fn query(&self, sql: &str, limits: &Limits) -> Result<ResultSet, QueryError> {
        match &self.workers {
            Some(workers) => workers.query(&self.path, sql, limits),
            None => self.with_connection(|connection| run(connection, sql, limits)),
        }
    }

    /// Compares the results of two queries, each of which has `limits`.
    pub fn check(&self, queries: &Check, limits: &Limits) -> Checked {
        let checked = match &self.workers {
            Some(workers) => workers.check(&self.path, queries, limits),
            None => self.with_connection(|connection| Ok(check(connection, queries, limits))),
        };
        checked.unwrap_or_else(Checked::Failed)
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
