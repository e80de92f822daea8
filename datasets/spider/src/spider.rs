//! A Spider folder: `tables.json` and the databases, from which everything else follows.

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
    /// Opens a folder: either the dataset's own, with `tables.json` and `database/` (or the
    /// databases themselves) in it, or its folder of databases, with `tables.json` in it or
    /// beside it.
    ///
    /// # Errors
    /// Where there is no `tables.json` that can be read.
    pub fn open(folder: impl AsRef<Path>, limits: Limits) -> Result<Self, TablesError> {
        let folder = folder.as_ref();
        let own = folder.join("tables.json");
        // `..` also holds for `.` and for links, where a path's parent would be another.
        let beside = folder.join("..").join("tables.json");
        let (tables, databases): (PathBuf, PathBuf) = if own.exists() || !beside.exists() {
            let inner = folder.join("database");
            (own, if inner.is_dir() { inner } else { folder.to_owned() })
        } else {
            (beside, folder.to_owned())
        };
        Ok(Self {
            tables: read_tables(&tables)?,
            databases: Databases::new(databases, limits),
            schemas: Mutex::default(),
        })
    }

    /// Databases without a folder and without `tables.json`: each is added by its file
    /// ([`Databases::add`]), which tells its schema.
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

    /// Whether `tables.json` knows the database.
    pub fn knows(&self, database: &str) -> bool {
        self.tables.contains_key(database)
    }

    /// The schema of a database: the names of its file, or of `tables.json` where there is
    /// no such file.
    ///
    /// # Errors
    /// Where neither tells it.
    pub fn schema(&self, database: &str) -> Result<Arc<Schema>, MatchError> {
        let kept = || self.schemas.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(schema) = kept().get(database) {
            return Ok(Arc::clone(schema));
        }
        let entry = self.tables.get(database);
        let schema = match (self.databases.get(database), entry) {
            (Ok(file), entry) => Schema::of_database(&file, entry),
            (Err(_), Some(entry)) => Schema::of_entry(entry),
            (Err(_), None) => return Err(MatchError::Unknown(database.to_owned())),
        };
        let schema = Arc::new(schema);
        kept().insert(database.to_owned(), Arc::clone(&schema));
        Ok(schema)
    }

    /// The hardness of a reference query.
    ///
    /// # Errors
    /// Where the database is unknown or the query does not parse.
    pub fn hardness(&self, database: &str, gold: &str) -> Result<Hardness, MatchError> {
        let schema = self.schema(database)?;
        Ok(hardness(&parse(gold, &schema).map_err(|_| MatchError::Gold)?))
    }

    /// Compares a prediction with its reference by their parts.
    ///
    /// # Errors
    /// Where the database is unknown or the reference does not parse. A prediction that does
    /// not parse is compared as an empty query.
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
