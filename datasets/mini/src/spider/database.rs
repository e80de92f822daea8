//! A database: its schema, its rows, and a SQLite connection for queries.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use leyden_core::SeedTree;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::rows::{self, Cell};
use super::schema::Schema;

/// An in-memory database of the world.
#[derive(Debug, Clone)]
pub struct Database {
    pub schema: Schema,
    pub(super) rows: Vec<Vec<Vec<Cell>>>,
    connection: Arc<Mutex<Connection>>,
}

impl Database {
    /// # Panics
    /// If SQLite cannot create the in-memory database of some dozen rows.
    pub(super) fn new(schema: Schema, seed: SeedTree) -> Self {
        let rows = rows::draw(&schema, seed);
        let connection = Connection::open_in_memory()
            .and_then(|connection| fill(&connection, &schema, &rows).map(|()| connection))
            .unwrap_or_else(|e| panic!("{} cannot be created in memory: {e}", schema.db_id));
        Self { schema, rows, connection: Arc::new(Mutex::new(connection)) }
    }

    /// Writes the database into a new file at `path`.
    ///
    /// # Errors
    /// SQLite's error.
    pub(super) fn write(&self, path: &Path) -> rusqlite::Result<()> {
        fill(&Connection::open(path)?, &self.schema, &self.rows)
    }

    /// The rows of a query. Values are text that encodes the type: equal values have equal text,
    /// 1 and 1.0 included, and numbers and strings are always different.
    ///
    /// Only for queries of this world; a model's queries belong in the agent's sandbox.
    ///
    /// # Errors
    /// SQLite's error with its message.
    pub fn run(&self, sql: &str) -> rusqlite::Result<Vec<Vec<String>>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let read = |row: &rusqlite::Row<'_>| (0..columns).map(|i| cell(row.get_ref(i)?)).collect();
        statement.query_map([], read)?.collect()
    }
}

fn cell(value: ValueRef<'_>) -> rusqlite::Result<String> {
    Ok(match value {
        ValueRef::Null => "null".to_string(),
        // The world's numbers are small; `{}` prints 1.0 as 1.
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) => x.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            format!("'{}'", String::from_utf8_lossy(bytes))
        }
    })
}

fn fill(connection: &Connection, schema: &Schema, rows: &[Vec<Vec<Cell>>]) -> rusqlite::Result<()> {
    let mut script = String::from("begin;\n");
    for statement in schema.create_statements() {
        script.push_str(&statement);
        script.push_str(";\n");
    }
    for (table, rows) in schema.tables.iter().zip(rows) {
        for row in rows {
            let values: Vec<String> = row.iter().map(Cell::sql).collect();
            script.push_str(&format!(
                "insert into {} values ({});\n",
                table.name,
                values.join(", ")
            ));
        }
    }
    script.push_str("commit;");
    connection.execute_batch(&script)
}
