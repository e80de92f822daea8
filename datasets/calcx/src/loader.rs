//! Calc-X rows become tasks.
//!
//! One bad row must not cost the others, nor pass unseen: loading returns the good tasks and
//! beside them every rejected row with file, line and id, so that a caller can report and go
//! on. Rows come from JSONL files or, as maps, from any other reader (the hub's Parquet).

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use leyden_core::Task;
use serde_json::{Map, Value};

/// What a source of rows gave: the tasks in its order, and the rows that are not usable.
#[derive(Debug, Default)]
pub struct Loaded {
    pub tasks: Vec<Task>,
    pub rejected: Vec<Rejected>,
}

/// A row that is not usable, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The file, or whatever the rows came from.
    pub source: String,
    /// The line in a JSONL file, else the number of the row; counted from 1.
    pub line: usize,
    /// The row's id, if it could be read.
    pub id: Option<String>,
    pub error: RowError,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.source, self.line)?;
        if let Some(id) = &self.id {
            write!(f, " (id {id})")?;
        }
        write!(f, ": {}", self.error)
    }
}

impl std::error::Error for Rejected {}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RowError {
    #[error("the row cannot be read: {0}")]
    Unreadable(String),
    #[error("the line is not UTF-8")]
    NotUtf8,
    #[error("the line is not JSON: {0}")]
    NotJson(String),
    #[error("the row is not a JSON object")]
    NotObject,
    #[error("the field {0} is missing")]
    Missing(&'static str),
    #[error("the field {0} is empty")]
    Empty(&'static str),
    #[error("the field {field} is not a text but {found}")]
    WrongType { field: &'static str, found: &'static str },
    #[error("the id was used before, on line {0}")]
    Duplicate(usize),
}

/// Why nothing could be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the file {} cannot be read: {source}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Loads a Calc-X JSONL file. Blank lines are skipped.
///
/// # Errors
/// Only where the file itself cannot be read; bad rows are in the result.
pub fn from_file(path: impl AsRef<Path>) -> Result<Loaded, LoadError> {
    let path = path.as_ref();
    let failed = |source| LoadError { path: path.to_owned(), source };
    let reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut collector = Collector::new(&path.display().to_string());
    for (index, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(failed)?;
        if !line.iter().all(u8::is_ascii_whitespace) {
            collector.take(index + 1, parse_line(&line));
        }
    }
    Ok(collector.loaded)
}

/// Makes tasks of rows that another reader gives; `name` says where they come from. A row
/// that could not be read is rejected with the others.
pub fn from_rows<E: fmt::Display>(
    rows: impl IntoIterator<Item = Result<Map<String, Value>, E>>,
    name: &str,
) -> Loaded {
    let mut collector = Collector::new(name);
    for (index, row) in rows.into_iter().enumerate() {
        let row = row.map_err(|error| RowError::Unreadable(error.to_string()));
        collector.take(index + 1, row);
    }
    collector.loaded
}

fn parse_line(line: &[u8]) -> Result<Map<String, Value>, RowError> {
    let text = std::str::from_utf8(line).map_err(|_| RowError::NotUtf8)?;
    let text = text.trim_start_matches('\u{feff}');
    match serde_json::from_str(text) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err(RowError::NotObject),
        Err(error) => Err(RowError::NotJson(error.to_string())),
    }
}

struct Collector {
    name: String,
    /// Line by id.
    seen: HashMap<String, usize>,
    loaded: Loaded,
}

impl Collector {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), seen: Default::default(), loaded: Loaded::default() }
    }

    fn take(&mut self, line: usize, row: Result<Map<String, Value>, RowError>) {
        let id = row.as_ref().ok().and_then(|row| row.get("id")?.as_str().map(str::to_owned));
        match row.and_then(task).and_then(|task| self.first_of_its_id(task, line)) {
            Ok(task) => self.loaded.tasks.push(task),
            Err(error) => {
                let source = self.name.clone();
                self.loaded.rejected.push(Rejected { source, line, id, error });
            }
        }
    }

    fn first_of_its_id(&mut self, task: Task, line: usize) -> Result<Task, RowError> {
        match self.seen.get(&task.id) {
            Some(&before) => Err(RowError::Duplicate(before)),
            None => {
                self.seen.insert(task.id.clone(), line);
                Ok(task)
            }
        }
    }
}

/// One row as a task: `id`, `question` and `result` by name, everything else as fields; the
/// source and `labels` also become labels.
fn task(mut row: Map<String, Value>) -> Result<Task, RowError> {
    let id = required(&mut row, "id")?;
    let question = required(&mut row, "question")?;
    let gold = required(&mut row, "result")?;
    for field in ["chain", "source"] {
        if let Some(value) = row.get(field).filter(|value| !value.is_null() && !value.is_string()) {
            return Err(RowError::WrongType { field, found: kind(value) });
        }
    }
    let labels = labels(&id, &row);
    Ok(Task { id, question, gold, labels, fields: row })
}

/// The source, and the texts of `labels` where a row brings its own, as files of generated
/// worlds do. The source is the field of that name or what the id begins with: Calc-X names
/// its rows `svamp__chal-1`.
fn labels(id: &str, row: &Map<String, Value>) -> Vec<(String, String)> {
    let by_id = || id.split_once("__").map(|(source, _)| source).filter(|s| !s.is_empty());
    let source = row.get("source").and_then(Value::as_str).or_else(by_id);
    let own = row.get("labels").and_then(Value::as_object).into_iter().flatten();
    let own = own.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    let all = source.map(|source| ("source", source)).into_iter().chain(own);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn required(row: &mut Map<String, Value>, field: &'static str) -> Result<String, RowError> {
    // `shift_remove` keeps the order of the other fields.
    match row.shift_remove(field) {
        None | Some(Value::Null) => Err(RowError::Missing(field)),
        Some(Value::String(text)) if text.trim().is_empty() => Err(RowError::Empty(field)),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(RowError::WrongType { field, found: kind(&other) }),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(bytes: &[u8]) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, bytes).unwrap();
        from_file(&path).unwrap()
    }

    #[test]
    fn good_rows_become_tasks_with_all_their_fields() {
        let loaded = load(
            br#"{"id": "a", "question": "q?", "chain": "c", "result": "4", "source": "s", "n": [1]}

{"id": "b", "question": "r?", "result": "5", "prefix_equation": "* 1 2"}"#,
        );
        assert!(loaded.rejected.is_empty());
        let [a, b] = loaded.tasks.as_slice() else { panic!("{} tasks", loaded.tasks.len()) };
        assert_eq!((a.id.as_str(), a.question.as_str(), a.gold.as_str()), ("a", "q?", "4"));
        assert_eq!(a.label("source"), Some("s"));
        assert_eq!(a.fields.keys().collect::<Vec<_>>(), ["chain", "source", "n"]);
        assert_eq!(b.label("source"), None);
        assert_eq!(b.fields["prefix_equation"], "* 1 2");
    }

    #[test]
    fn an_id_names_the_source_where_no_field_does() {
        let loaded = load(
            br#"{"id": "svamp__chal-1", "question": "q", "result": "4"}
{"id": "svamp__chal-2", "question": "q", "result": "4", "source": "own"}
{"id": "__3", "question": "q", "result": "4"}"#,
        );
        let sources: Vec<_> = loaded.tasks.iter().map(|task| task.label("source")).collect();
        assert_eq!(sources, [Some("svamp"), Some("own"), None]);
    }

    #[test]
    fn rows_may_bring_their_own_labels() {
        let loaded = load(
            br#"{"id": "a", "question": "q", "result": "4", "source": "s", "labels": {"operations": "2", "n": 1}}
{"id": "b", "question": "q", "result": "4", "labels": "none"}"#,
        );
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(loaded.tasks[0].labels, [text("source", "s"), text("operations", "2")]);
        assert_eq!(loaded.tasks[1].labels, []);
    }

    #[test]
    fn each_bad_row_is_named_and_the_others_survive() {
        let mut bytes = br#"{"id": "a", "question": "q", "result": "1"}
{"id": "b", "question": "q", "result":
[1, 2]
{"question": "q", "result": "1"}
{"id": "e", "question": " ", "result": "1"}
{"id": "f", "question": "q", "result": 1}
{"id": "a", "question": "again", "result": "1"}
{"id": "h", "question": "q", "result": "1", "chain": ["x"]}
{"id": "i", "question": "q", "result": null}
"#
        .to_vec();
        bytes.extend(b"\xff\xfe\n{\"id\": \"z\", \"question\": \"q\", \"result\": \"1\"}");
        let loaded = load(&bytes);
        let ids: Vec<_> = loaded.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["a", "z"]);
        let told: Vec<String> = loaded.rejected.iter().map(ToString::to_string).collect();
        let expected = [
            "line 2: the line is not JSON",
            "line 3: the row is not a JSON object",
            "line 4: the field id is missing",
            "line 5 (id e): the field question is empty",
            "line 6 (id f): the field result is not a text but a number",
            "line 7 (id a): the id was used before, on line 1",
            "line 8 (id h): the field chain is not a text but a list",
            "line 9 (id i): the field result is missing",
            "line 10: the line is not UTF-8",
        ];
        assert_eq!(told.len(), expected.len());
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains("rows.jsonl, ") && told.contains(expected), "{told}");
        }
    }

    #[test]
    fn rows_of_another_reader_are_taken_the_same_way() {
        let row = |id: &str| {
            let mut row = Map::new();
            for (key, value) in [("id", id), ("question", "q"), ("result", "1")] {
                row.insert(key.into(), value.into());
            }
            row
        };
        let rows = [Ok(row("a")), Err("page is broken"), Ok(row("a")), Ok(row("c"))];
        let loaded = from_rows(rows, "train.parquet");
        assert_eq!(loaded.tasks.len(), 2);
        assert_eq!(
            loaded.rejected[0].to_string(),
            "train.parquet, line 2: the row cannot be read: page is broken"
        );
        assert_eq!(loaded.rejected[1].error, RowError::Duplicate(1));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = from_file("/nowhere/rows.jsonl").unwrap_err().to_string();
        assert!(error.starts_with("the file /nowhere/rows.jsonl cannot be read: "), "{error}");
    }
}
