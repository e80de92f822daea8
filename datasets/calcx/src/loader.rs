//! Loads Calc-X rows as tasks.
//!
//! Rows come from JSONL files or, as maps, from any other reader (the hub's Parquet). Bad rows are
//! returned separately from the tasks, with file, line and id.

use std::fmt;
use std::path::Path;

use leyden_core::Task;
use leyden_core::rows::{
    self, Place, id_or_default, own_labels, required, required_number_or_text, wrong_type,
};
pub use leyden_core::rows::{LoadError, Loaded, Rejected, RowError};
use serde_json::{Map, Value};

/// Loads a Calc-X file: JSONL, or one JSON list.
///
/// # Errors
/// Only if the file itself cannot be read; bad rows are in the result.
pub fn from_file(path: impl AsRef<Path>) -> Result<Loaded, LoadError> {
    let path = path.as_ref();
    rows::load(path, |row, place| task(row, place, path))
}

/// Converts rows from another reader to tasks; `name` identifies their source in errors. A row
/// that could not be read is among the rejected ones.
pub fn from_rows<E: fmt::Display>(
    rows: impl IntoIterator<Item = Result<Map<String, Value>, E>>,
    name: &str,
) -> Loaded {
    let readable = |row: Result<_, E>| row.map_err(|error| RowError::Unreadable(error.to_string()));
    let rows = rows.into_iter().map(readable);
    rows::collect(rows, name, |row, place| task(row, place, Path::new(name)))
}

/// Converts a row to a task: `id` (see [`id_or_default`]), `question` and `result` by name, everything
/// else as fields; the source and `labels` also become labels.
fn task(mut row: Map<String, Value>, place: Place, file: &Path) -> Result<Task, RowError> {
    let id = id_or_default(&mut row, file, place)?;
    let question = required(&mut row, "question")?;
    let gold = required_number_or_text(&mut row, "result")?;
    for field in ["chain", "source"] {
        if let Some(value) = row.get(field).filter(|value| !value.is_null() && !value.is_string()) {
            return Err(wrong_type(field, "a text", value));
        }
    }
    let labels = labels(&id, &row);
    Ok(Task { id, question, gold, labels, fields: row })
}

/// The source and the row's own labels. The source is the field of that name or the prefix of the
/// id: Calc-X names its rows `svamp__chal-1`.
fn labels(id: &str, row: &Map<String, Value>) -> Vec<(String, String)> {
    let by_id = || id.split_once("__").map(|(source, _)| source).filter(|s| !s.is_empty());
    let source = row.get("source").and_then(Value::as_str).or_else(by_id);
    let source = source.map(|source| ("source".to_owned(), source.to_owned()));
    source.into_iter().chain(own_labels(row)).collect()
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
    fn the_id_prefix_is_the_source_without_a_field() {
        let loaded = load(
            br#"{"id": "svamp__chal-1", "question": "q", "result": "4"}
{"id": "svamp__chal-2", "question": "q", "result": "4", "source": "own"}
{"id": "__3", "question": "q", "result": "4"}"#,
        );
        let sources: Vec<_> = loaded.tasks.iter().map(|task| task.label("source")).collect();
        assert_eq!(sources, [Some("svamp"), Some("own"), None]);
    }

    #[test]
    fn results_may_be_numbers_and_ids_may_be_missing() {
        let loaded = load(
            br#"{"question": "q", "result": 4}
{"id": 7, "question": "q", "result": -2.5}
{"id": " ", "question": "q", "result": "1"}"#,
        );
        let tasks = loaded.tasks.iter().map(|task| (task.id.as_str(), task.gold.as_str()));
        assert_eq!(tasks.collect::<Vec<_>>(), [("rows-0", "4"), ("rows-7", "-2.5")]);
        assert_eq!(loaded.rejected.len(), 1);
    }

    #[test]
    fn rows_may_have_labels() {
        let loaded = load(
            br#"{"id": "a", "question": "q", "result": "4", "source": "s", "labels": {"operations": "2", "n": 1}}
{"id": "b", "question": "q", "result": "4", "labels": "none"}"#,
        );
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(loaded.tasks[0].labels, [text("source", "s"), text("operations", "2")]);
        assert_eq!(loaded.tasks[1].labels, []);
    }

    #[test]
    fn each_bad_row_is_named_and_the_others_are_loaded() {
        let mut bytes = br#"{"id": "a", "question": "q", "result": "1"}
{"id": "b", "question": "q", "result":
[1, 2]
{"id": ["d"], "question": "q", "result": "1"}
{"id": "e", "question": " ", "result": "1"}
{"id": "f", "question": "q", "result": [1]}
{"id": "a", "question": "again", "result": "1"}
{"id": "h", "question": "q", "result": "1", "chain": ["x"]}
{"id": "i", "question": "q", "result": null}
"#
        .to_vec();
        bytes.extend(b"\xff\xfe\n{\"id\": \"z\", \"question\": \"q\", \"result\": \"1\"}");
        let loaded = load(&bytes);
        let ids: Vec<_> = loaded.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["a", "z"]);
        let messages: Vec<String> = loaded.rejected.iter().map(ToString::to_string).collect();
        let expected = [
            "line 2: the line is not JSON",
            "line 3: the row is not a JSON object",
            "line 4: the field id is not a text or a whole number but a list",
            "line 5 (id e): the field question is empty",
            "line 6 (id f): the field result is not a text or a number but a list",
            "line 7 (id a): the id was used before, in line 1",
            "line 8 (id h): the field chain is not a text but a list",
            "line 9 (id i): the field result is missing",
            "line 10: the line is not UTF-8",
        ];
        assert_eq!(messages.len(), expected.len());
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.contains("rows.jsonl, ") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn rows_of_another_reader_are_handled_equally() {
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
            "train.parquet, row 2: the row cannot be read: page is broken"
        );
        assert_eq!(loaded.rejected[1].error.to_string(), "the id was used before, in row 1");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = from_file("/nowhere/rows.jsonl").unwrap_err().to_string();
        assert!(error.starts_with("the file /nowhere/rows.jsonl cannot be read: "), "{error}");
    }
}
