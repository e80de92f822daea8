//! mini-spider as files in Spider's formats.

use std::path::{Path, PathBuf};

use leyden_core::Task;
use serde_json::{Map, Value, json};

use super::{Content, MiniSpider, Schema};
use crate::files::{self, ExportError};

impl MiniSpider {
    /// Writes `train.json` with the first `train` training tasks, `dev.json` with `test` test
    /// tasks, `tables.json` and the databases into `folder`, which is created if missing.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write(&self, folder: &Path, train: u64, test: usize) -> Result<(), ExportError> {
        self.write_databases(folder)?;
        let train = (0..train).map(|i| row(&self.train(i))).collect();
        files::write_json(&folder.join("train.json"), train)?;
        let test = self.test(test).iter().map(row).collect();
        files::write_json(&folder.join("dev.json"), test)
    }

    /// Writes `tables.json` and `database/<db_id>/<db_id>.sqlite` for every database into
    /// `folder`, replacing existing files. Returns the folder `database`.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write_databases(&self, folder: &Path) -> Result<PathBuf, ExportError> {
        let schemas = self.databases().iter().map(|database| entry(&database.schema)).collect();
        files::write_json(&folder.join("tables.json"), schemas)?;
        let databases = folder.join("database");
        for database in self.databases() {
            let db_id = database.schema.db_id;
            let path = databases.join(db_id).join(format!("{db_id}.sqlite"));
            files::clear_path(&path)?;
            database.write(&path).map_err(|source| ExportError::new(&path, source))?;
        }
        Ok(databases)
    }
}

fn row(task: &Task) -> Value {
    let field = |name: &str| task.fields.get(name).cloned().unwrap_or(Value::Null);
    let mut row = Map::new();
    row.insert("db_id".into(), field("db_id"));
    row.insert("question".into(), json!(task.question));
    row.insert("query".into(), json!(task.gold));
    row.insert("id".into(), json!(task.id));
    row.insert("template".into(), field("template"));
    row.insert("labels".into(), files::labels(task));
    Value::Object(row)
}

/// Columns are numbered across all tables; `*` is number 0.
fn entry(schema: &Schema) -> Value {
    let mut columns = vec![json!([-1, "*"])];
    let mut words = columns.clone();
    let mut types = vec!["text"];
    let mut primary = Vec::new();
    let mut foreign = Vec::new();
    let mut first_columns = Vec::new();
    for (t, table) in schema.tables.iter().enumerate() {
        first_columns.push(columns.len());
        for column in &table.columns {
            let number = columns.len();
            match column.content {
                Content::Id => primary.push(number),
                // A table follows those that its keys refer to.
                Content::Key(parent) => foreign.push([number, first_columns[parent]]),
                _ => {}
            }
            columns.push(json!([t, column.name]));
            words.push(json!([t, column.name.replace('_', " ")]));
            types.push(if column.content.sql_type() == "text" { "text" } else { "number" });
        }
    }
    let tables: Vec<&str> = schema.tables.iter().map(|table| table.name.as_str()).collect();
    json!({
        "db_id": schema.db_id,
        "table_names_original": tables,
        "table_names": tables,
        "column_names_original": columns,
        "column_names": words,
        "column_types": types,
        "primary_keys": primary,
        "foreign_keys": foreign,
    })
}
