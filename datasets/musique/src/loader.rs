//! Loads MuSiQue rows as tasks.
//!
//! Two file formats are supported: the official JSONL (`id`, `paragraphs`, `question`,
//! `question_decomposition`, `answer`, `answer_aliases`, `answerable`), and a JSON list of
//! `question` and `answer` only, for corpora with their own passages. Rows of the hub's Parquet
//! files come as maps. Malformed rows and rows without an answer (as in the official test split)
//! are returned separately from the tasks, with file, line and id.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use leyden_core::Task;
use leyden_core::rows::{self, Place, own_labels, required, wrong_type};
pub use leyden_core::rows::{LoadError, Loaded, Rejected, RowError};
use serde_json::{Map, Value};

/// Loads a MuSiQue file of either format; blank lines are skipped.
///
/// # Errors
/// Only if the file itself cannot be read; bad rows are in the result.
pub fn from_file(path: impl AsRef<Path>) -> Result<Loaded, LoadError> {
    rows::load(path, task)
}

/// Converts rows from another reader to tasks; `name` identifies their source in errors. A row
/// that could not be read is among the rejected ones.
pub fn from_rows<E: fmt::Display>(
    rows: impl IntoIterator<Item = Result<Map<String, Value>, E>>,
    name: &str,
) -> Loaded {
    let readable = |row: Result<_, E>| row.map_err(|error| RowError::Unreadable(error.to_string()));
    rows::collect(rows.into_iter().map(readable), name, task)
}

/// Converts a row to a task: `id`, `question` and `answer` by name, everything else as fields.
///
/// Labels: `hops`, the number of single-hop questions; `answerable`, if the row has the field; and
/// the row's own labels. The full dataset has each question twice under one id, once with
/// insufficient paragraphs; that task gets the suffix `__unanswerable`. The id of a row with only
/// question and answer is its position.
fn task(mut row: Map<String, Value>, place: Place) -> Result<Task, RowError> {
    let bare = !row.contains_key("id") && !row.contains_key("paragraphs");
    let mut id = if bare { format!("row_{}", place.index + 1) } else { required(&mut row, "id")? };
    let question = required(&mut row, "question")?;
    let gold = required(&mut row, "answer")?;
    check_aliases(&row)?;
    check_paragraphs(&row)?;
    let mut labels = Vec::new();
    if let Some(hops) = hops(&row, &id)? {
        labels.push(("hops".to_owned(), hops.to_string()));
    }
    match row.get("answerable") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(answerable)) => {
            labels.push(("answerable".to_owned(), answerable.to_string()));
            if !answerable {
                id.push_str("__unanswerable");
            }
        }
        Some(other) => return Err(wrong_type("answerable", "true or false", other)),
    }
    for (name, value) in own_labels(&row) {
        if labels.iter().all(|(known, _)| *known != name) {
            labels.push((name, value));
        }
    }
    Ok(Task { id, question, gold, labels, fields: row })
}

/// The answer and its aliases.
pub fn golds(task: &Task) -> impl Iterator<Item = &str> {
    let aliases = task.fields.get("answer_aliases").and_then(Value::as_array);
    std::iter::once(task.gold.as_str())
        .chain(aliases.into_iter().flatten().filter_map(Value::as_str))
}

fn check_aliases(row: &Map<String, Value>) -> Result<(), RowError> {
    for (place, alias) in list(row, "answer_aliases")?.iter().enumerate() {
        if !alias.is_string() {
            return Err(wrong_type(format!("answer_aliases[{place}]"), "a text", alias));
        }
    }
    Ok(())
}

/// An optional list field.
fn list<'a>(row: &'a Map<String, Value>, field: &'static str) -> Result<&'a [Value], RowError> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(wrong_type(field, "a list", other)),
    }
}

/// The number of hops: the length of the decomposition, else the digit before `hop` in the id.
fn hops(row: &Map<String, Value>, id: &str) -> Result<Option<usize>, RowError> {
    let steps = list(row, "question_decomposition")?.len();
    let named = || id.split_once("hop").and_then(|(digit, _)| digit.parse().ok());
    Ok(if steps > 0 { Some(steps) } else { named() })
}

/// Checks that paragraphs have a title and a text. `is_supporting` and `idx` may be missing, as in
/// splits without references, but must have the right type.
fn check_paragraphs(row: &Map<String, Value>) -> Result<(), RowError> {
    let mut places = HashSet::new();
    for (place, paragraph) in list(row, "paragraphs")?.iter().enumerate() {
        let name = |field: &str| format!("paragraphs[{place}].{field}");
        let Value::Object(paragraph) = paragraph else {
            return Err(wrong_type(format!("paragraphs[{place}]"), "an object", paragraph));
        };
        for field in ["title", "paragraph_text"] {
            match paragraph.get(field) {
                Some(Value::String(_)) => {}
                None => return Err(RowError::Missing(name(field).into())),
                Some(other) => return Err(wrong_type(name(field), "a text", other)),
            }
        }
        if let Some(value) = paragraph.get("is_supporting").filter(|value| !value.is_boolean()) {
            return Err(wrong_type(name("is_supporting"), "true or false", value));
        }
        match paragraph.get("idx") {
            None => {}
            Some(value) => match value.as_i64() {
                Some(idx) if places.insert(idx) => {}
                Some(_) => return Err(RowError::Repeated(name("idx").into())),
                None => return Err(wrong_type(name("idx"), "a whole number", value)),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Loaded {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        from_file(&path).unwrap()
    }

    fn rejections(loaded: &Loaded) -> Vec<String> {
        let sentence = |rejected: &Rejected| {
            let text = rejected.to_string();
            text.split_once("rows.jsonl, ").map_or(text.clone(), |(_, rest)| rest.to_owned())
        };
        loaded.rejected.iter().map(sentence).collect()
    }

    const ROW: &str = r#"{"id": "2hop__1_2", "question": "q?", "answer": "A", "answer_aliases": ["B"],
        "answerable": true, "question_decomposition": [{"id": 1}, {"id": 2}], "paragraphs": [
        {"idx": 0, "title": "T", "paragraph_text": "x", "is_supporting": true}]}"#;

    fn row(changes: &[(&str, Value)]) -> String {
        let mut row: Map<String, Value> = serde_json::from_str(ROW).unwrap();
        for (field, value) in changes {
            row.insert((*field).to_owned(), value.clone());
        }
        Value::Object(row).to_string()
    }

    #[test]
    fn official_rows_keep_all_their_fields() {
        let loaded = load(&row(&[("extra", 1.into())]));
        assert_eq!(rejections(&loaded), [""; 0]);
        let task = &loaded.tasks[0];
        assert_eq!((task.id.as_str(), task.gold.as_str()), ("2hop__1_2", "A"));
        assert_eq!((task.label("hops"), task.label("answerable")), (Some("2"), Some("true")));
        let fields: Vec<_> = task.fields.keys().map(String::as_str).collect();
        let expected =
            ["answer_aliases", "answerable", "question_decomposition", "paragraphs", "extra"];
        assert_eq!(fields, expected);
        assert_eq!(golds(task).collect::<Vec<_>>(), ["A", "B"]);
    }

    #[test]
    fn hops_come_from_the_id_where_there_is_no_decomposition() {
        let rows = ["3hop1__7_8_9", "other"]
            .map(|id| row(&[("id", id.into()), ("question_decomposition", Value::Null)]));
        let loaded = load(&rows.join("\n"));
        let hops: Vec<_> = loaded.tasks.iter().map(|task| task.label("hops")).collect();
        assert_eq!(hops, [Some("3"), None]);
    }

    /// The full dataset has every question twice under one id; both must be kept.
    #[test]
    fn the_two_questions_of_an_id_are_both_kept() {
        let loaded = load(&[row(&[]), row(&[("answerable", false.into())])].join("\n"));
        let ids: Vec<_> = loaded.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["2hop__1_2", "2hop__1_2__unanswerable"]);
        assert_eq!(loaded.tasks[1].label("answerable"), Some("false"));
    }

    #[test]
    fn each_bad_row_is_named_and_the_others_are_loaded() {
        let with = |field: &str, json: &str| row(&[(field, serde_json::from_str(json).unwrap())]);
        let text = [
            row(&[]),
            with("answer", "null"),
            with("answer", "\" \""),
            with("answer", "7"),
            with("id", "null"),
            with("answer_aliases", "\"B\""),
            with("answer_aliases", "[\"B\", 3]"),
            with("answerable", "\"yes\""),
            with("paragraphs", "{}"),
            with("paragraphs", "[3]"),
            with("paragraphs", r#"[{"title": "T"}]"#),
            with("paragraphs", r#"[{"title": "T", "paragraph_text": "x", "is_supporting": 1}]"#),
            with("paragraphs", r#"[{"title": "T", "paragraph_text": "x", "idx": 0.5}]"#),
            with(
                "paragraphs",
                r#"[{"title": "T", "paragraph_text": "x", "idx": 4},
                    {"title": "T", "paragraph_text": "y", "idx": 4}]"#,
            ),
            row(&[]),
            "{\"id\":".to_owned(),
            row(&[("id", "last".into())]),
        ]
        .join("\n");
        let loaded = load(&text);
        let ids: Vec<_> = loaded.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["2hop__1_2", "last"]);
        let expected = [
            "line 2 (id 2hop__1_2): the field answer is missing",
            "line 3 (id 2hop__1_2): the field answer is empty",
            "line 4 (id 2hop__1_2): the field answer is not a text but a number",
            "line 5: the field id is missing",
            "line 6 (id 2hop__1_2): the field answer_aliases is not a list but a text",
            "line 7 (id 2hop__1_2): the field answer_aliases[1] is not a text but a number",
            "line 8 (id 2hop__1_2): the field answerable is not true or false but a text",
            "line 9 (id 2hop__1_2): the field paragraphs is not a list but an object",
            "line 10 (id 2hop__1_2): the field paragraphs[0] is not an object but a number",
            "line 11 (id 2hop__1_2): the field paragraphs[0].paragraph_text is missing",
            "line 12 (id 2hop__1_2): the field paragraphs[0].is_supporting is not true or false but a number",
            "line 13 (id 2hop__1_2): the field paragraphs[0].idx is not a whole number but a number",
            "line 14 (id 2hop__1_2): the field paragraphs[1].idx has a value that was used before",
            "line 15 (id 2hop__1_2): the id was used before, in line 1",
        ];
        let rejections = rejections(&loaded);
        assert_eq!(rejections[..14], expected);
        assert!(rejections[14].starts_with("line 16: the line is not JSON"), "{}", rejections[14]);
    }

    #[test]
    fn a_list_of_questions_and_answers_is_loaded() {
        let loaded = load(
            "\u{feff}\n[{\"question\": \"q\", \"answer\": \"A\"}, 3, {\"question\": \"q\"},\n \
             {\"question\": \"q\", \"answer\": \"A\"}]",
        );
        let ids: Vec<_> = loaded.tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["row_1", "row_4"]);
        assert_eq!(
            rejections(&loaded),
            ["row 2: the row is not a JSON object", "row 3: the field answer is missing"]
        );
        assert_eq!(load("[]").tasks, []);
    }

    #[test]
    fn a_broken_list_is_an_error_and_a_list_in_jsonl_is_a_bad_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        std::fs::write(&path, "[{\"question\": \"q\", \"answer\": \"A\"},\n").unwrap();
        let broken = from_file(&path).unwrap_err().to_string();
        let expected = "rows.json cannot be read: it begins as a JSON list but is not one (";
        assert!(broken.contains(expected), "{broken}");
        let loaded = load(&format!("[1, 2]\n{}", row(&[])));
        assert_eq!(rejections(&loaded), ["line 1: the row is not a JSON object"]);
        assert_eq!(loaded.tasks.len(), 1);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = from_file("/nowhere/rows.jsonl").unwrap_err().to_string();
        assert!(error.starts_with("the file /nowhere/rows.jsonl cannot be read: "), "{error}");
    }
}
