//! A Spider folder: `tables.json` and the databases.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::database::{DatabaseError, Databases, Limits, Workers};
use crate::exact::{ExactMatch, exact_match};
use crate::hardness::{Hardness, hardness};
use crate::schema::{Schema, TableEntry, TablesError, read_tables};
use crate::sql::{Query, parse};

/// Why two queries cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MatchError {
    #[error("its reference query is outside the SQL that the Spider evaluator parses")]
    Gold,
    #[error("tables.json has no database {0}")]
    Unknown(String),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// A prediction compared with its reference as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    pub hardness: Hardness,
    /// Whether the evaluator's parser accepts the prediction.
    pub parsed: bool,
    pub exact: ExactMatch,
}

/// Schemas and databases of a Spider folder.
#[derive(Debug)]
pub struct Spider {
    tables: HashMap<String, TableEntry>,
    databases: Databases,
    schemas: Mutex<HashMap<String, Arc<Schema>>>,
}

impl Spider {
    /// Opens a folder: either the dataset's folder, with `tables.json` and `database/` (or the
    /// databases themselves), or its folder of databases, with `tables.json` inside or next to it.
    ///
    /// # Errors
    /// If there is no readable `tables.json`.
    pub fn open(folder: impl AsRef<Path>, limits: Limits) -> Result<Self, TablesError> {
        let folder = folder.as_ref();
        let own = folder.join("tables.json");
        // Unlike a path's parent, `..` is also correct for `.` and for links.
        let sibling = folder.join("..").join("tables.json");
        let (tables, databases): (PathBuf, PathBuf) = if own.exists() || !sibling.exists() {
            let inner = folder.join("database");
            (own, if inner.is_dir() { inner } else { folder.to_owned() })
        } else {
            (sibling, folder.to_owned())
        };
        Ok(Self {
            tables: read_tables(&tables)?,
            databases: Databases::new(databases, limits),
            schemas: Mutex::default(),
        })
    }

    /// Without folder and `tables.json`: each database is added by its file ([`Databases::add`]),
    /// which determines its schema.
    pub fn of_files(limits: Limits) -> Self {
        Self {
            tables: HashMap::new(),
            databases: Databases::new(PathBuf::new(), limits),
            schemas: Mutex::default(),
        }
    }

    /// Has queries run by `workers` instead of this process, where there are some. To be called
    /// before the first database is opened.
    #[must_use]
    pub fn with_workers(self, workers: Option<Arc<Workers>>) -> Self {
        Self { databases: self.databases.with_workers(workers), ..self }
    }

    pub fn databases(&self) -> &Databases {
        &self.databases
    }

    /// Whether `tables.json` has the database.
    pub fn knows(&self, database: &str) -> bool {
        self.tables.contains_key(database)
    }

    /// The schema of a database, with names from its file or, without a file, from `tables.json`.
    ///
    /// # Errors
    /// If there is neither.
    pub fn schema(&self, database: &str) -> Result<Arc<Schema>, MatchError> {
        let cache = || self.schemas.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(schema) = cache().get(database) {
            return Ok(Arc::clone(schema));
        }
        let entry = self.tables.get(database);
        let schema = match (self.databases.get(database), entry) {
            (Ok(file), entry) => Schema::of_database(&file, entry),
            (Err(_), Some(entry)) => Schema::of_entry(entry),
            (Err(_), None) => return Err(MatchError::Unknown(database.to_owned())),
        };
        let schema = Arc::new(schema);
        cache().insert(database.to_owned(), Arc::clone(&schema));
        Ok(schema)
    }

    /// The hardness of a reference query.
    ///
    /// # Errors
    /// If the database is unknown or the query does not parse.
    pub fn hardness(&self, database: &str, gold: &str) -> Result<Hardness, MatchError> {
        let schema = self.schema(database)?;
        Ok(hardness(&parse(gold, &schema).map_err(|_| MatchError::Gold)?))
    }

    /// Compares a prediction with its reference by their parts.
    ///
    /// # Errors
    /// If the database is unknown or the reference does not parse. A prediction that does not parse
    /// is compared as an empty query.
    pub fn compare(
        &self,
        database: &str,
        gold: &str,
        predicted: &str,
    ) -> Result<Matched, MatchError> {
        let schema = self.schema(database)?;
        let gold = parse(gold, &schema).map_err(|_| MatchError::Gold)?;
        let predicted = parse(predicted, &schema);
        let parsed = predicted.is_ok();
        let predicted = predicted.unwrap_or_else(|_| Query::default());
        let exact = exact_match(&gold, &predicted, &schema);
        Ok(Matched { hardness: hardness(&gold), parsed, exact })
    }
}
