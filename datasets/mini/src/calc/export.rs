//! mini-calc as files in the Calc-X format.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use leyden_core::Task;
use serde_json::{Map, Value, json};

use super::MiniCalc;

/// A file of the world could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be written: {source}", path.display())]
pub struct ExportError {
    path: PathBuf,
    source: std::io::Error,
}

impl MiniCalc {
    /// Writes `train.jsonl` with the first `train` training tasks and `test.jsonl` with `test`
    /// test tasks into `folder`, which is made if missing.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write_jsonl(&self, folder: &Path, train: u64, test: usize) -> Result<(), ExportError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ExportError { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let path = folder.join("train.jsonl");
        write_rows(&path, (0..train).map(|i| self.train(i))).map_err(failed(&path))?;
        let path = folder.join("test.jsonl");
        write_rows(&path, self.test(test).into_iter()).map_err(failed(&path))
    }
}

fn write_rows(path: &Path, tasks: impl Iterator<Item = Task>) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for task in tasks {
        serde_json::to_writer(&mut file, &row(&task))?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// The row of a task: the four fields of Calc-X, then this world's own.
fn row(task: &Task) -> Value {
    let labels: Map<String, Value> =
        task.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut row = Map::new();
    row.insert("id".into(), json!(task.id));
    row.insert("question".into(), json!(task.question));
    row.insert("chain".into(), task.fields.get("chain").cloned().unwrap_or(Value::Null));
    row.insert("result".into(), json!(task.gold));
    for (name, value) in task.fields.iter().filter(|(name, _)| *name != "chain") {
        row.insert(name.clone(), value.clone());
    }
    row.insert("labels".into(), Value::Object(labels));
    Value::Object(row)
}
