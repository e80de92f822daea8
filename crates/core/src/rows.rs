//! Rows of dataset files become tasks.
//!
//! One bad row must not cost the others, nor pass unseen: loading returns the good tasks and
//! beside them every rejected row with file, line and id, so that a caller can report and go
//! on. What a row must hold is each dataset's own affair; this is what all of them share.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::task::Task;

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

/// What is wrong with a row. Fields inside lists are named with their place:
/// `paragraphs[3].title`.
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
    Missing(Cow<'static, str>),
    #[error("the field {0} is empty")]
    Empty(Cow<'static, str>),
    #[error("the field {field} is not {expected} but {found}")]
    WrongType { field: Cow<'static, str>, expected: &'static str, found: &'static str },
    #[error("the field {0} has a value that was used before")]
    Repeated(Cow<'static, str>),
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

/// Makes tasks of the rows of a JSONL file by `task`, which is given each row and its line.
/// Blank lines are skipped; a second row with a task's id is rejected.
///
/// # Errors
/// Only where the file itself cannot be read; bad rows are in the result.
pub fn load_jsonl(
    path: impl AsRef<Path>,
    task: impl Fn(Map<String, Value>, usize) -> Result<Task, RowError>,
) -> Result<Loaded, LoadError> {
    let path = path.as_ref();
    let mut collector = Collector::new(&path.display().to_string(), task);
    for line in JsonLines::open(path)? {
        let Line { number, row } = line?;
        collector.take(number, row);
    }
    Ok(collector.loaded)
}

/// Makes tasks of rows that another reader gives; `name` says where they come from. A row
/// that could not be read is rejected with the others.
pub fn collect(
    rows: impl IntoIterator<Item = Result<Map<String, Value>, RowError>>,
    name: &str,
    task: impl Fn(Map<String, Value>, usize) -> Result<Task, RowError>,
) -> Loaded {
    let mut collector = Collector::new(name, task);
    for (index, row) in rows.into_iter().enumerate() {
        collector.take(index + 1, row);
    }
    collector.loaded
}

/// One line of a JSONL file.
#[derive(Debug)]
pub struct Line {
    /// Counted from 1, blank lines included.
    pub number: usize,
    pub row: Result<Map<String, Value>, RowError>,
}

/// The lines of a JSONL file, read one at a time; blank lines are left out.
pub struct JsonLines {
    path: PathBuf,
    lines: io::Split<BufReader<File>>,
    number: usize,
}

impl JsonLines {
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let path = path.as_ref().to_owned();
        match File::open(&path) {
            Ok(file) => Ok(Self { path, lines: BufReader::new(file).split(b'\n'), number: 0 }),
            Err(source) => Err(LoadError { path, source }),
        }
    }
}

impl Iterator for JsonLines {
    type Item = Result<Line, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.number += 1;
            match self.lines.next()? {
                Ok(line) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(line) => return Some(Ok(Line { number: self.number, row: parse_line(&line) })),
                Err(source) => return Some(Err(LoadError { path: self.path.clone(), source })),
            }
        }
    }
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

/// Takes a text that must be there out of a row; the order of the other fields stays.
///
/// # Errors
/// Where the field is missing, empty or no text.
pub fn required(row: &mut Map<String, Value>, field: &'static str) -> Result<String, RowError> {
    match row.shift_remove(field) {
        None | Some(Value::Null) => Err(RowError::Missing(field.into())),
        Some(Value::String(text)) if text.trim().is_empty() => Err(RowError::Empty(field.into())),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong_type(field, "a text", &other)),
    }
}

/// The error of a field that holds something else than `expected` (`a text`, `a list`).
pub fn wrong_type(
    field: impl Into<Cow<'static, str>>,
    expected: &'static str,
    found: &Value,
) -> RowError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    RowError::WrongType { field: field.into(), expected, found }
}

struct Collector<F> {
    name: String,
    task: F,
    /// Line by id.
    seen: HashMap<String, usize>,
    loaded: Loaded,
}

impl<F: Fn(Map<String, Value>, usize) -> Result<Task, RowError>> Collector<F> {
    fn new(name: &str, task: F) -> Self {
        Self { name: name.to_owned(), task, seen: HashMap::new(), loaded: Loaded::default() }
    }

    fn take(&mut self, line: usize, row: Result<Map<String, Value>, RowError>) {
        let id = row.as_ref().ok().and_then(|row| row.get("id")?.as_str().map(str::to_owned));
        let task = row.and_then(|row| (self.task)(row, line));
        match task.and_then(|task| self.first_of_its_id(task, line)) {
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
