//! A user's own task files: rows of `id`, `question`, `answer` and optional further fields.
//!
//! JSONL, one JSON list, or Parquet. Other fields with short texts, numbers or Booleans become
//! labels, by which evaluations are broken down; so do the entries of `labels`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use leyden_core::Task;
use leyden_core::rows::{self, Place, RowError, own_labels, required, wrong_type};
use leyden_hub::parquet;
use serde_json::{Map, Value};

use crate::benchmark::{LoadedTasks, read_rows};

/// Maximum length of a label in characters.
const LONGEST_LABEL: usize = 64;

/// Number of bytes of a file that are searched for field names.
const SEARCHED: u64 = 1 << 20;

/// Reads a file of rows and converts each with `task`.
///
/// # Errors
/// A file that cannot be read as a whole; bad rows are in the result.
pub fn read(
    path: &Path,
    task: impl Fn(Map<String, Value>, Place) -> Result<Task, RowError>,
) -> Result<LoadedTasks> {
    read_rows(
        path,
        |path| rows::load(path, &task),
        |read, name| {
            let readable =
                read.map(|row| row.map_err(|error| RowError::Unreadable(error.to_string())));
            rows::collect(readable, name, &task)
        },
    )
}

/// Converts a row to a task; `answer` is the name of the field with the reference answer.
///
/// # Errors
/// A field that is missing, empty or of the wrong type, by name.
pub fn task(mut row: Map<String, Value>, answer: &'static str) -> Result<Task, RowError> {
    let id = match row.shift_remove("id") {
        Some(Value::Number(id)) => id.to_string(),
        Some(id) => {
            row.insert("id".to_owned(), id);
            required(&mut row, "id")?
        }
        None => return Err(RowError::Missing("id".into())),
    };
    let question = required(&mut row, "question")?;
    let gold = match row.shift_remove(answer) {
        None | Some(Value::Null) => return Err(RowError::Missing(answer.into())),
        Some(Value::String(text)) if text.trim().is_empty() => {
            return Err(RowError::Empty(answer.into()));
        }
        Some(Value::String(text)) => text,
        // Numbers, and objects and lists for the reward `json`.
        Some(other) => other.to_string(),
    };
    if let Some(aliases) = row.get("answer_aliases")
        && !aliases.as_array().is_some_and(|list| list.iter().all(Value::is_string))
    {
        return Err(wrong_type("answer_aliases", "a list of texts", aliases));
    }
    let mut labels: Vec<(String, String)> = own_labels(&row).collect();
    for (name, value) in &row {
        let text = match value {
            Value::String(text) if text.chars().count() <= LONGEST_LABEL => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => continue,
        };
        if labels.iter().all(|(known, _)| known != name) {
            labels.push((name.clone(), text));
        }
    }
    Ok(Task { id, question, gold, labels, fields: row })
}

/// The field names at the beginning of a file.
pub struct Fields {
    /// Names in the first row of a Parquet file.
    names: Option<Vec<String>>,
    text: String,
}

impl Fields {
    /// Reads the beginning of a file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        if parquet::is_parquet(path) {
            let first: Option<Map<String, Value>> = parquet::rows(path)?.next().transpose()?;
            let names = first.map(|row| row.into_iter().map(|(name, _)| name).collect());
            return Ok(Self { names: Some(names.unwrap_or_default()), text: String::new() });
        }
        let mut start = Vec::new();
        let file = File::open(path).with_context(|| path.display().to_string())?;
        file.take(SEARCHED).read_to_end(&mut start).with_context(|| path.display().to_string())?;
        Ok(Self { names: None, text: String::from_utf8_lossy(&start).into_owned() })
    }

    /// Whether the field occurs.
    pub fn has(&self, field: &str) -> bool {
        match &self.names {
            Some(names) => names.iter().any(|name| name == field),
            None => self.text.contains(&format!("\"{field}\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> LoadedTasks {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path, |row, _| task(row, "answer")).unwrap()
    }

    #[test]
    fn rows_become_tasks_with_labels() {
        let long = "x".repeat(65);
        let text = format!(
            "{{\"id\": \"a\", \"question\": \"q\", \"answer\": 4, \"topic\": \"sums\", \"hard\": \
             true, \"note\": \"{long}\", \"labels\": {{\"split\": \"b\"}}}}\n\
             {{\"id\": 2, \"question\": \"q\", \"answer\": {{\"x\": 1}}}}\n"
        );
        let read = read_text(text.as_bytes());
        assert!(read.rejected.is_empty(), "{:?}", read.rejected);
        let [a, b] = read.tasks.as_slice() else { panic!("{} tasks", read.tasks.len()) };
        assert_eq!(
            (a.gold.as_str(), a.label("topic"), a.label("hard")),
            ("4", Some("sums"), Some("true"))
        );
        assert_eq!((a.label("split"), a.label("note")), (Some("b"), None));
        assert!(a.fields.contains_key("note") && !a.fields.contains_key("answer"));
        assert_eq!((b.id.as_str(), b.gold.as_str()), ("2", r#"{"x":1}"#));
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let read = read_text(
            b"{\"id\": \"a\", \"question\": \"q\"}\n\
              {\"question\": \"q\", \"answer\": \"x\"}\n\
              {\"id\": \"c\", \"question\": 7, \"answer\": \"x\"}\n\
              {\"id\": \"d\", \"question\": \"q\", \"answer\": \" \"}\n\
              {\"id\": \"e\", \"question\": \"q\", \"answer\": \"x\", \"answer_aliases\": [1]}\n\
              not JSON\n\
              \xff\xfe\n\
              [1]\n\
              {\"id\": \"f\", \"question\": \"q\", \"answer\": \"x\"}\n\
              {\"id\": \"f\", \"question\": \"q\", \"answer\": \"x\"}\n",
        );
        assert_eq!(read.tasks.len(), 1);
        for (sentence, part) in read.rejected.iter().zip([
            "my.jsonl, line 1 (id a): the field answer is missing",
            "my.jsonl, line 2: the field id is missing",
            "my.jsonl, line 3 (id c): the field question is not a text but a number",
            "my.jsonl, line 4 (id d): the field answer is empty",
            "my.jsonl, line 5 (id e): the field answer_aliases is not a list of texts",
            "my.jsonl, line 6: the line is not JSON",
            "my.jsonl, line 7: the line is not UTF-8",
            "my.jsonl, line 8: the row is not a JSON object",
            "my.jsonl, line 10 (id f): the id was used before, in line 9",
        ]) {
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn fields_are_found_at_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.jsonl");
        std::fs::write(&path, "{\"id\": 1, \"question\": \"q\"}").unwrap();
        let fields = Fields::of(&path).unwrap();
        assert!(fields.has("question") && !fields.has("answer"));
        assert!(Fields::of(&folder.path().join("none")).is_err());
    }
}
