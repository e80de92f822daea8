//! File output shared by the exports of the worlds.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use leyden_core::Task;
use serde_json::{Map, Value, json};

/// A file of a world could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be written: {source}", path.display())]
pub struct ExportError {
    path: PathBuf,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ExportError {
    pub(crate) fn new(
        path: &Path,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { path: path.to_path_buf(), source: source.into() }
    }
}

/// Creates the folder of `path` and removes an existing file at `path`.
pub(crate) fn clear_path(path: &Path) -> Result<(), ExportError> {
    let created = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let removed = || match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    created.and_then(|()| removed()).map_err(|source| ExportError::new(path, source))
}

/// Writes one row per line. The folder is created if missing.
pub(crate) fn write_jsonl(
    path: &Path,
    rows: impl Iterator<Item = Value>,
) -> Result<(), ExportError> {
    write(path, |file| {
        for row in rows {
            serde_json::to_writer(&mut *file, &row)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Writes all rows as one array. The folder is created if missing.
pub(crate) fn write_json(path: &Path, rows: Vec<Value>) -> Result<(), ExportError> {
    write(path, |file| Ok(serde_json::to_writer_pretty(file, &rows)?))
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<std::fs::File>) -> std::io::Result<()>,
) -> Result<(), ExportError> {
    let written = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        content(&mut file)?;
        file.flush()
    };
    written().map_err(|source| ExportError::new(path, source))
}

/// The labels of a task as an object.
pub(crate) fn labels(task: &Task) -> Value {
    Value::Object(task.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}

/// The row of a word problem: the four fields of Calc-X, then those of its world.
pub(crate) fn calcx_row(task: &Task) -> Value {
    let mut row = Map::new();
    row.insert("id".into(), json!(task.id));
    row.insert("question".into(), json!(task.question));
    row.insert("chain".into(), task.fields.get("chain").cloned().unwrap_or(Value::Null));
    row.insert("result".into(), json!(task.gold));
    for (name, value) in task.fields.iter().filter(|(name, _)| *name != "chain") {
        row.insert(name.clone(), value.clone());
    }
    row.insert("labels".into(), labels(task));
    Value::Object(row)
}
