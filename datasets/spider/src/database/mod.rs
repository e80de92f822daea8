//! The databases that questions are about: found by name, queried within limits.
//!
//! A folder holds one folder per database, which holds one SQLite file of its name, or
//! several where a test suite brings more contents of the same schema. Queries of a model
//! run on them in many threads at once; see [`sandbox`] for the limits of a query and [`worker`] for
//! the process that it runs in.

mod check;
mod clock;
mod compare;
mod describe;
mod file;
mod guard;
mod limits;
pub mod sandbox;
mod value;
pub mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

pub use check::{Check, Checked};
pub use compare::same_result;
pub use describe::{Detail, render};
pub use file::{DatabaseFile, TableInfo};
pub use limits::{Limits, QueryError};
pub use sandbox::{ResultSet, STATEMENT_BYTES};
pub use value::Value;
pub use worker::Workers;

/// Why a database cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database {id} is missing: there is no file {}", path.display())]
    Missing { id: String, path: PathBuf },
    #[error("the database {id} cannot be used: {} is not a readable SQLite file ({what})", path.display())]
    Unreadable { id: String, path: PathBuf, what: String },
    /// An id is the name of a folder, so what could lead out of the folder is refused.
    #[error("`{id}` is not the name of a database")]
    Name { id: String },
}

/// All databases of a folder, opened as they are asked for.
#[derive(Debug)]
pub struct Databases {
    folder: PathBuf,
    limits: Limits,
    workers: Option<Arc<Workers>>,
    open: Mutex<HashMap<String, Arc<Database>>>,
}

impl Databases {
    /// The databases `folder/<id>/<id>.sqlite`, queried in this process.
    pub fn new(folder: impl Into<PathBuf>, limits: Limits) -> Self {
        Self { folder: folder.into(), limits, workers: None, open: Mutex::default() }
    }

    /// The same, queried by `workers` where there are some: for queries that are not trusted.
    #[must_use]
    pub fn with_workers(self, workers: Option<Arc<Workers>>) -> Self {
        Self { workers, ..self }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A database by its file, wherever that is. Its name from then on is the file's path.
    ///
    /// # Errors
    /// Where there is no such file or it is not one of SQLite.
    pub fn add(&self, file: &Path) -> Result<Arc<Database>, DatabaseError> {
        let id = file.display().to_string();
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(database) = open.get(&id) {
            return Ok(Arc::clone(database));
        }
        if !file.is_file() {
            return Err(DatabaseError::Missing { id, path: file.to_owned() });
        }
        let paths = vec![file.to_owned()];
        let database = Arc::new(Database::of_files(id.clone(), paths, self)?);
        open.insert(id, Arc::clone(&database));
        Ok(database)
    }

    /// The database `id`.
    ///
    /// # Errors
    /// Where there is no such database or its file is not one of SQLite.
    pub fn get(&self, id: &str) -> Result<Arc<Database>, DatabaseError> {
        let open = || self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(database) = open().get(id) {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(Database::open(id, self)?);
        Ok(Arc::clone(open().entry(id.to_owned()).or_insert(database)))
    }
}

/// One database: its file, further contents of the same schema, and what they declare.
#[derive(Debug)]
pub struct Database {
    id: String,
    /// The file of the database's own name first.
    files: Vec<DatabaseFile>,
    tables: Vec<TableInfo>,
    limits: Limits,
    has_rows: OnceLock<bool>,
    described: Mutex<HashMap<Detail, Arc<str>>>,
}

impl Database {
    fn open(id: &str, all: &Databases) -> Result<Self, DatabaseError> {
        let id = id.to_owned();
        if id.is_empty() || id.starts_with('.') || id.contains(['/', '\\', ':', '\0']) {
            return Err(DatabaseError::Name { id });
        }
        let own = all.folder.join(&id).join(format!("{id}.sqlite"));
        if !own.is_file() {
            return Err(DatabaseError::Missing { id, path: own });
        }
        let others = other_files(&own);
        Self::of_files(id, [vec![own], others].concat(), all)
    }

    /// A database of these files, of which there is at least one.
    fn of_files(id: String, paths: Vec<PathBuf>, all: &Databases) -> Result<Self, DatabaseError> {
        let file = |path| DatabaseFile::new(path, all.workers.clone());
        let files: Vec<DatabaseFile> = paths.into_iter().map(file).collect();
        match files[0].tables() {
            Ok(tables) => Ok(Self {
                id,
                files,
                tables,
                limits: all.limits.clone(),
                has_rows: OnceLock::new(),
                described: Mutex::default(),
            }),
            Err(error) => {
                let path = files[0].path().to_owned();
                Err(DatabaseError::Unreadable { id, path, what: error.to_string() })
            }
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// All contents that a query is judged on; the first is the one that agents see.
    pub fn files(&self) -> &[DatabaseFile] {
        &self.files
    }

    pub fn tables(&self) -> &[TableInfo] {
        &self.tables
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs a query on the database's own file.
    ///
    /// # Errors
    /// Whatever stops it; see [`QueryError`].
    pub fn query(&self, sql: &str) -> Result<ResultSet, QueryError> {
        self.files[0].query(sql, &self.limits)
    }

    /// Whether any table has a row. On a database without rows nearly every query gives the
    /// same empty result, so that a reward says nothing.
    pub fn has_rows(&self) -> bool {
        *self.has_rows.get_or_init(|| {
            self.tables.iter().filter(|table| !table.name.starts_with("sqlite_")).any(|table| {
                let quoted = table.name.replace('"', "\"\"");
                let found = self.query(&format!("SELECT 1 FROM \"{quoted}\" LIMIT 1"));
                found.is_ok_and(|result| !result.rows.is_empty())
            })
        })
    }
}

/// The other SQLite files of the folder, by name.
fn other_files(own: &Path) -> Vec<PathBuf> {
    let entries = own.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let mut paths: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "sqlite") && path != own)
        .collect();
    paths.sort();
    paths
}
