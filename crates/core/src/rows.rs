//! Loads dataset files: rows become tasks.
//!
//! A bad row must neither fail the load nor go unnoticed: loading returns the valid tasks and,
//! separately, every rejected row with file, line and id, so that a caller can report them and
//! continue. Each dataset validates its own fields; this module is the shared part.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::task::Task;

/// The result of loading: the tasks in source order, and the rejected rows.
#[derive(Debug, Default)]
pub struct Loaded {
    pub tasks: Vec<Task>,
    pub rejected: Vec<Rejected>,
}

/// The position of a row in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its index among all rows, including bad ones, counted from 0.
    pub index: usize,
    /// Its line, counted from 1, if the source is read line by line.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}"),
            None => write!(f, "row {}", self.index + 1),
        }
    }
}

/// A rejected row and the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The file or other source of the rows.
    pub source: String,
    pub place: Place,
    /// The row's id, if it could be read.
    pub id: Option<String>,
    pub error: RowError,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.source, self.place)?;
        if let Some(id) = &self.id {
            write!(f, " (id {id})")?;
        }
        write!(f, ": {}", self.error)
    }
}

impl std::error::Error for Rejected {}

/// Why a row was rejected. Fields inside lists are named by index: `paragraphs[3].title`.
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
    #[error("the id was used before, in {0}")]
    Duplicate(Place),
    /// A violated requirement specific to one dataset.
    #[error("{0}")]
    Unfit(String),
}

/// The file could not be loaded at all.
#[derive(Debug, thiserror::Error)]
#[error("the file {} cannot be read: {source}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// A parsed row, or why it could not be parsed.
type Row = Result<Map<String, Value>, RowError>;

/// Loads a file, converting each row and its place to a task with `task`. The file is JSONL or one
/// JSON list. Blank lines are skipped; a row whose task id occurred before is rejected.
///
/// # Errors
/// Only if the file itself cannot be read, or starts as a JSON list that does not end; bad rows are
/// in the result.
pub fn load(
    path: impl AsRef<Path>,
    task: impl Fn(Map<String, Value>, Place) -> Result<Task, RowError>,
) -> Result<Loaded, LoadError> {
    let path = path.as_ref();
    let name = path.display().to_string();
    let items = list_items(path).map_err(|source| LoadError { path: path.to_owned(), source })?;
    if let Some(items) = items {
        return Ok(collect(items, &name, task));
    }
    let mut collector = Collector::new(&name, task);
    for (index, line) in JsonLines::open(path)?.enumerate() {
        let Line { number, row } = line?;
        collector.take(Place { index, line: Some(number) }, row);
    }
    Ok(collector.loaded)
}

/// Converts rows from another reader to tasks; `name` identifies their source. Rows that could not
/// be read are rejected like the others.
pub fn collect(
    rows: impl IntoIterator<Item = Row>,
    name: &str,
    task: impl Fn(Map<String, Value>, Place) -> Result<Task, RowError>,
) -> Loaded {
    let mut collector = Collector::new(name, task);
    for (index, row) in rows.into_iter().enumerate() {
        collector.take(Place { index, line: None }, row);
    }
    collector.loaded
}

/// The items of a file that is one JSON list; `None` if it is not one. A file whose first line is a
/// complete list is treated as JSONL.
fn list_items(path: &Path) -> io::Result<Option<Vec<Row>>> {
    let mut reader = BufReader::new(File::open(path)?);
    let start = without_bom(reader.fill_buf()?);
    if start.trim_ascii_start().first() != Some(&b'[') {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    let text = without_bom(&bytes);
    let items: Vec<Value> = match serde_json::from_slice(text) {
        Ok(items) => items,
        Err(error) => {
            let first = text.trim_ascii_start().split(|byte| *byte == b'\n').next();
            let is_whole = |line| serde_json::from_slice::<Vec<Value>>(line).is_ok();
            if first.is_some_and(is_whole) {
                return Ok(None);
            }
            let what = format!("it begins as a JSON list but is not one ({error})");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    };
    let object = |item| match item {
        Value::Object(row) => Ok(row),
        _ => Err(RowError::NotObject),
    };
    Ok(Some(items.into_iter().map(object).collect()))
}

/// The bytes without a byte order mark.
fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// One line of a JSONL file.
#[derive(Debug)]
pub struct Line {
    /// Counted from 1, blank lines included.
    pub number: usize,
    pub row: Row,
}

/// The lines of a JSONL file, read one at a time; blank lines are skipped.
pub struct JsonLines {
    path: PathBuf,
    lines: io::Split<BufReader<File>>,
    number: usize,
}

impl JsonLines {
    /// # Errors
    /// If the file cannot be opened.
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

fn parse_line(line: &[u8]) -> Row {
    let text = std::str::from_utf8(line).map_err(|_| RowError::NotUtf8)?;
    let text = text.trim_start_matches('\u{feff}');
    match serde_json::from_str(text) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err(RowError::NotObject),
        Err(error) => Err(RowError::NotJson(error.to_string())),
    }
}

/// Removes a required string field from a row; the order of the other fields is kept.
///
/// # Errors
/// If the field is missing, empty or not a string.
pub fn required(row: &mut Map<String, Value>, field: &'static str) -> Result<String, RowError> {
    match row.shift_remove(field) {
        None | Some(Value::Null) => Err(RowError::Missing(field.into())),
        Some(Value::String(text)) if text.trim().is_empty() => Err(RowError::Empty(field.into())),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong_type(field, "a text", &other)),
    }
}

/// As [`required`], but a number is accepted as well and becomes its decimal text.
///
/// # Errors
/// If the field is missing, empty or neither a string nor a number.
pub fn required_number_or_text(
    row: &mut Map<String, Value>,
    field: &'static str,
) -> Result<String, RowError> {
    match row.get(field) {
        Some(Value::Number(number)) => {
            let text = number.to_string();
            row.shift_remove(field);
            Ok(text)
        }
        Some(other) if !other.is_string() && !other.is_null() => {
            Err(wrong_type(field, "a text or a number", other))
        }
        _ => required(row, field),
    }
}

/// The id of a row of the file `source`: its own if it is a text. A whole number becomes
/// `{stem}-{number}` with the file's stem, because numbers alone would repeat from file to file; a row
/// without an id gets `{stem}-{index}`.
///
/// # Errors
/// If the field `id` is of another type.
pub fn id_or_default(
    row: &mut Map<String, Value>,
    source: &Path,
    place: Place,
) -> Result<String, RowError> {
    let stem = source.file_stem().unwrap_or_default().display();
    match row.shift_remove("id") {
        Some(Value::String(id)) if !id.trim().is_empty() => Ok(id),
        Some(Value::Number(id)) if !id.is_f64() => Ok(format!("{stem}-{id}")),
        None | Some(Value::Null) => Ok(format!("{stem}-{}", place.index)),
        Some(other) => Err(wrong_type("id", "a text or a whole number", &other)),
    }
}

/// The error for a field whose type is not `expected` (`a text`, `a list`).
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

/// The string entries of the row's `labels` field, if present, as in files of generated worlds.
pub fn own_labels(row: &Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    let labels = row.get("labels").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
}

struct Collector<F> {
    name: String,
    task: F,
    /// Place by id.
    seen: HashMap<String, Place>,
    loaded: Loaded,
}

impl<F: Fn(Map<String, Value>, Place) -> Result<Task, RowError>> Collector<F> {
    fn new(name: &str, task: F) -> Self {
        Self { name: name.to_owned(), task, seen: HashMap::new(), loaded: Loaded::default() }
    }

    fn take(&mut self, place: Place, row: Row) {
        let id = row.as_ref().ok().and_then(|row| match row.get("id")? {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        });
        let task = row.and_then(|row| (self.task)(row, place));
        match task.and_then(|task| self.reject_duplicate(task, place)) {
            Ok(task) => self.loaded.tasks.push(task),
            Err(error) => {
                let source = self.name.clone();
                self.loaded.rejected.push(Rejected { source, place, id, error });
            }
        }
    }

    fn reject_duplicate(&mut self, task: Task, place: Place) -> Result<Task, RowError> {
        match self.seen.get(&task.id) {
            Some(&before) => Err(RowError::Duplicate(before)),
            None => {
                self.seen.insert(task.id.clone(), place);
                Ok(task)
            }
        }
    }
}
