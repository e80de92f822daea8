//! mini-ledger as files in the Calc-X format.

use std::path::Path;

use leyden_core::Task;
use serde_json::{Map, Value, json};

use super::MiniLedger;
use crate::files::{self, ExportError};

impl MiniLedger {
    /// Writes `train.jsonl` with the first `train` training tasks and `test.jsonl` with `test`
    /// test tasks into `folder`, which is created if missing.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write_jsonl(&self, folder: &Path, train: u64, test: usize) -> Result<(), ExportError> {
        let train = (0..train).map(|i| row(&self.train(i)));
        files::write_jsonl(&folder.join("train.jsonl"), train)?;
        files::write_jsonl(&folder.join("test.jsonl"), self.test(test).iter().map(row))
    }
}

/// The row of a task: the four fields of Calc-X, then the fields of this world.
fn row(task: &Task) -> Value {
    let mut row = Map::new();
    row.insert("id".into(), json!(task.id));
    row.insert("question".into(), json!(task.question));
    row.insert("chain".into(), task.fields.get("chain").cloned().unwrap_or(Value::Null));
    row.insert("result".into(), json!(task.gold));
    for (name, value) in task.fields.iter().filter(|(name, _)| *name != "chain") {
        row.insert(name.clone(), value.clone());
    }
    row.insert("labels".into(), files::labels(task));
    Value::Object(row)
}
