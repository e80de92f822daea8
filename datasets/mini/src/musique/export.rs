//! mini-musique as files in MuSiQue's format, and its corpus.

use std::path::Path;

use leyden_core::Task;
use serde_json::{Map, Value, json};

use super::MiniMusique;
use crate::files::{self, ExportError};

impl MiniMusique {
    /// Writes `train.jsonl` with the first `train` training tasks, `test.jsonl` with `test`
    /// test tasks, and `corpus.jsonl` with all passages (`id`, `title`, `text`) into `folder`,
    /// which is created if missing.
    ///
    /// # Errors
    /// If the folder or a file cannot be written.
    pub fn write_jsonl(&self, folder: &Path, train: u64, test: usize) -> Result<(), ExportError> {
        self.write_corpus(&folder.join("corpus.jsonl"))?;
        let train = (0..train).map(|i| row(&self.train(i)));
        files::write_jsonl(&folder.join("train.jsonl"), train)?;
        files::write_jsonl(&folder.join("test.jsonl"), self.test(test).iter().map(row))
    }

    /// Writes all passages, one per line: `id`, `title`, `text`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_corpus(&self, path: &Path) -> Result<(), ExportError> {
        let row = |p: &super::Passage| json!({ "id": p.id, "title": p.title, "text": p.text });
        files::write_jsonl(path, self.passages().iter().map(row))
    }
}

/// The row of a task: the seven fields of MuSiQue, then the fields of this world. `source` is
/// omitted, so that tasks from a file are searched in their paragraphs or in the exported corpus,
/// not in the generated corpus of some seed.
fn row(task: &Task) -> Value {
    let field = |name: &str| task.fields.get(name).cloned().unwrap_or(Value::Null);
    let mut row = Map::new();
    row.insert("id".into(), json!(task.id));
    row.insert("paragraphs".into(), field("paragraphs"));
    row.insert("question".into(), json!(task.question));
    row.insert("question_decomposition".into(), field("question_decomposition"));
    row.insert("answer".into(), json!(task.gold));
    for (name, value) in task.fields.iter().filter(|(name, _)| *name != "source") {
        if !row.contains_key(name) {
            row.insert(name.clone(), value.clone());
        }
    }
    row.insert("labels".into(), files::labels(task));
    Value::Object(row)
}
