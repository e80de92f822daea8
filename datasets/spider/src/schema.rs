//! Tables and columns by number, with columns merged by foreign keys.
//!
//! Names come from the database file, foreign keys from `tables.json`, as in the official
//! evaluator. For a database without a file the names also come from `tables.json`, which suffices
//! to parse a query and to compute its hardness.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::database::Database;
use crate::sql::ast::{ALL_COLUMNS, ColumnId};

/// One database in `tables.json`; a column is (index of its table, name).
#[derive(Debug, Clone, Deserialize)]
pub struct TableEntry {
    pub db_id: String,
    #[serde(rename = "table_names_original")]
    pub tables: Vec<String>,
    /// The first is `*`, whose table is -1.
    #[serde(rename = "column_names_original")]
    pub columns: Vec<(i64, String)>,
    /// Pairs of indices into `columns`.
    #[serde(default)]
    pub foreign_keys: Vec<(usize, usize)>,
}

/// Why `tables.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    #[error(
        "there is no file {}: Spider's tables.json must be next to its questions and its folder database/",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("the file {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the file {} is not a list of schemas: {what}", path.display())]
    Format { path: PathBuf, what: String },
}

/// Reads `tables.json`; schemas by the name of their database.
///
/// # Errors
/// If the file is missing or malformed.
pub fn read_tables(path: &Path) -> Result<HashMap<String, TableEntry>, TablesError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(TablesError::Missing { path });
        }
        Err(source) => return Err(TablesError::Read { path, source }),
    };
    match serde_json::from_str::<Vec<TableEntry>>(&text) {
        Ok(entries) => Ok(entries.into_iter().map(|e| (e.db_id.clone(), e)).collect()),
        Err(error) => Err(TablesError::Format { path, what: error.to_string() }),
    }
}

#[derive(Debug, Clone)]
struct Column {
    /// `None` for `*`, and for columns that the evaluator cannot assign to a table.
    table: Option<u32>,
    /// Equal for columns that are equal in `group by` regardless of their table.
    name: u32,
    /// The first of the columns merged with this one by foreign keys, else itself.
    merged: ColumnId,
}

/// Tables and columns of one database, all names in lower case.
#[derive(Debug, Clone)]
pub struct Schema {
    tables: HashMap<String, u32>,
    /// Per table: its columns by name.
    by_name: Vec<HashMap<String, ColumnId>>,
    columns: Vec<Column>,
}

impl Schema {
    /// The schema of a database with the foreign keys of its entry in `tables.json`.
    pub fn of_database(database: &Database, entry: Option<&TableEntry>) -> Self {
        let tables = database.tables().iter().map(|t| (t.name.as_str(), t.columns.iter()));
        let mut schema = Self::new(tables);
        if let Some(entry) = entry {
            schema.merge_foreign_keys(entry);
        }
        schema
    }

    /// The schema from `tables.json` alone.
    pub fn of_entry(entry: &TableEntry) -> Self {
        let tables = entry.tables.iter().enumerate().map(|(place, name)| {
            let place = i64::try_from(place).unwrap_or(i64::MAX);
            let columns = entry.columns.iter().filter(move |(table, _)| *table == place);
            (name.as_str(), columns.map(|(_, column)| column))
        });
        let mut schema = Self::new(tables);
        schema.merge_foreign_keys(entry);
        schema
    }

    fn new<'a, C: Iterator<Item = &'a String>>(tables: impl Iterator<Item = (&'a str, C)>) -> Self {
        let all = Column { table: None, name: 0, merged: ALL_COLUMNS };
        let mut schema = Self { tables: HashMap::new(), by_name: Vec::new(), columns: vec![all] };
        let mut names: HashMap<String, u32> = HashMap::new();
        for (table, columns) in tables {
            let table = table.to_lowercase();
            let number = schema.by_name.len() as u32;
            // The evaluator truncates a table's name at a period.
            let own = (!table.contains('.')).then_some(number);
            let mut by_name = HashMap::new();
            for column in columns {
                let column = column.to_lowercase();
                let id = schema.columns.len() as ColumnId;
                let next = names.len() as u32 + 1;
                let name = *names.entry(bare_name(&table, &column)).or_insert(next);
                by_name.insert(column, id);
                schema.columns.push(Column { table: own, name, merged: id });
            }
            schema.by_name.push(by_name);
            schema.tables.insert(table, number);
        }
        schema
    }

    /// Merges columns connected by foreign keys into the first of them. The official rule processes
    /// the keys in order and adds each to the first set that contains one of its ends, so that two
    /// sets connected by a later key stay separate.
    fn merge_foreign_keys(&mut self, entry: &TableEntry) {
        let mut sets: Vec<Vec<usize>> = Vec::new();
        for &(a, b) in &entry.foreign_keys {
            match sets.iter_mut().find(|set| set.contains(&a) || set.contains(&b)) {
                Some(set) => set.extend([a, b]),
                None => sets.push(vec![a, b]),
            }
        }
        for set in sets {
            let first = set.iter().min().and_then(|&place| self.column_of(entry, place));
            // A column that the database lacks still represents its set.
            let first = first.unwrap_or_else(|| {
                let id = self.columns.len() as ColumnId;
                self.columns.push(Column { table: None, name: u32::MAX, merged: id });
                id
            });
            for place in set {
                if let Some(id) = self.column_of(entry, place) {
                    self.columns[id as usize].merged = first;
                }
            }
        }
    }

    fn column_of(&self, entry: &TableEntry, place: usize) -> Option<ColumnId> {
        let (table, column) = entry.columns.get(place)?;
        let table = entry.tables.get(usize::try_from(*table).ok()?)?;
        self.column(self.table(&table.to_lowercase())?, &column.to_lowercase())
    }

    /// The number of a table by its lower-case name.
    pub fn table(&self, name: &str) -> Option<u32> {
        self.tables.get(name).copied()
    }

    /// A column of a table by its lower-case name.
    pub fn column(&self, table: u32, name: &str) -> Option<ColumnId> {
        self.by_name.get(table as usize)?.get(name).copied()
    }

    /// The merged column, if its table is among the tables of `from`.
    pub(crate) fn merged(&self, column: ColumnId, tables: &[u32]) -> ColumnId {
        match self.columns.get(column as usize) {
            Some(Column { table: Some(table), merged, .. }) if tables.contains(table) => *merged,
            _ => column,
        }
    }

    /// Equal for columns of the same name.
    pub(crate) fn name(&self, column: ColumnId) -> u32 {
        self.columns.get(column as usize).map_or(u32::MAX, |column| column.name)
    }
}

/// The part of `table.column` between the first two periods, which the evaluator compares in
/// `group by`.
fn bare_name(table: &str, column: &str) -> String {
    let qualified = format!("{table}.{column}");
    qualified.split('.').nth(1).unwrap_or_default().to_owned()
}
