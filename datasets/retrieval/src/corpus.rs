//! Corpus files: one passage per line.

use std::path::Path;

use leyden_core::Passage;
use leyden_core::rows::{
    JsonLines, Line, LoadError, Place, Rejected, RowError, required, wrong_type,
};
use serde_json::{Map, Value};

/// Maximum number of rejected lines kept for reporting; further ones are only counted.
const MAX_REPORTED: usize = 100;

/// Iterator over the passages of a JSONL file: `id` (or `_id`; a string or an integer), `title`
/// (optional) and `text`.
///
/// Malformed lines are skipped, counted, and recorded with file, line and id.
pub struct PassageFile {
    source: String,
    lines: std::iter::Enumerate<Box<dyn Iterator<Item = Result<Line, LoadError>> + Send>>,
    rejected: Vec<Rejected>,
    rejected_count: usize,
}

impl PassageFile {
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref();
        Ok(Self::of_lines(path.display().to_string(), JsonLines::open(path)?))
    }

    /// Passages from another reader, such as one of Parquet; `source` is its name in messages.
    pub fn of_lines(
        source: String,
        lines: impl Iterator<Item = Result<Line, LoadError>> + Send + 'static,
    ) -> Self {
        let lines: Box<dyn Iterator<Item = _> + Send> = Box::new(lines);
        Self { source, lines: lines.enumerate(), rejected: Vec::new(), rejected_count: 0 }
    }

    /// The first rejected lines so far, at most a hundred.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// The number of all rejected lines so far.
    pub fn rejected_count(&self) -> usize {
        self.rejected_count
    }

    fn reject(&mut self, place: Place, id: Option<String>, error: RowError) {
        self.rejected_count += 1;
        if self.rejected.len() < MAX_REPORTED {
            self.rejected.push(Rejected { source: self.source.clone(), place, id, error });
        }
    }
}

impl Iterator for PassageFile {
    type Item = Result<Passage, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (index, line) = match self.lines.next()? {
                (index, Ok(line)) => (index, line),
                (_, Err(error)) => return Some(Err(error)),
            };
            let place = Place { index, line: Some(line.number) };
            let id = line.row.as_ref().ok().and_then(|row| id(row).ok());
            match line.row.and_then(passage) {
                Ok(passage) => return Some(Ok(passage)),
                Err(error) => self.reject(place, id, error),
            }
        }
    }
}

fn passage(mut row: Map<String, Value>) -> Result<Passage, RowError> {
    let id = id(&row)?;
    let title = match row.shift_remove("title") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(title)) => title,
        Some(other) => return Err(wrong_type("title", "a text", &other)),
    };
    Ok(Passage { id, title, text: required(&mut row, "text")? })
}

fn id(row: &Map<String, Value>) -> Result<String, RowError> {
    match row.get("id").or_else(|| row.get("_id")) {
        None | Some(Value::Null) => Err(RowError::Missing("id".into())),
        Some(Value::String(id)) if id.is_empty() => Err(RowError::Empty("id".into())),
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(id.to_string()),
        Some(other) => Err(wrong_type("id", "a text or a whole number", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_named_and_the_others_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.jsonl");
        let lines = [
            r#"{"id": "a", "title": "T", "text": "x", "url": "u"}"#,
            r#"{"_id": 7, "text": "y"}"#,
            r#"{"title": "T", "text": "x"}"#,
            r#"{"id": "d", "title": "T"}"#,
            r#"{"id": "e", "title": 3, "text": "x"}"#,
            r#"{"id": 1.5, "text": "x"}"#,
            "x",
            r#"{"id": "h", "title": null, "text": "z"}"#,
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let mut file = PassageFile::open(&path).unwrap();
        let passages: Vec<Passage> = file.by_ref().map(Result::unwrap).collect();
        let found: Vec<_> =
            passages.iter().map(|p| (p.id.as_str(), p.title.as_str(), p.text.as_str())).collect();
        assert_eq!(found, [("a", "T", "x"), ("7", "", "y"), ("h", "", "z")]);
        let messages: Vec<String> = file.rejected().iter().map(ToString::to_string).collect();
        let expected = [
            "line 3: the field id is missing",
            "line 4 (id d): the field text is missing",
            "line 5 (id e): the field title is not a text but a number",
            "line 6: the field id is not a text or a whole number but a number",
            "line 7: the line is not JSON",
        ];
        assert_eq!(file.rejected_count(), expected.len());
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.contains("corpus.jsonl, ") && message.contains(expected), "{message}");
        }
    }
}
