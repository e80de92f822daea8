//! Spider's questions become tasks.
//!
//! A file is a JSON list, as the dataset is published, or JSONL with one question a line. A
//! bad row must not cost the others, nor pass unseen; nor may a database that cannot be
//! used: each is named with the number of its questions, so that a caller can report and go
//! on.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use leyden_core::Task;
use serde_json::{Map, Value};

use crate::database::DatabaseError;
use crate::scorer::DATABASE_FIELD;
use crate::spider::Spider;

/// What to do with questions about databases without rows, on which any query with an empty
/// result is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutRows {
    LeaveOut,
    Keep,
}

/// What a file gave.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In the order of the file.
    pub tasks: Vec<Task>,
    /// Rows that are not usable.
    pub rejected: Vec<Rejected>,
    /// Databases that are not usable, by name, with their questions counted.
    pub databases: Vec<UnusableDatabase>,
}

/// A database whose questions cannot, or should not, be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct UnusableDatabase {
    pub id: String,
    /// Number of questions about it in the file.
    pub questions: usize,
    /// Whether these questions are among the tasks all the same.
    pub kept: bool,
    pub problem: DatabaseProblem,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DatabaseProblem {
    #[error(transparent)]
    Unusable(#[from] DatabaseError),
    #[error("the database {0} has no rows")]
    WithoutRows(String),
}

impl fmt::Display for UnusableDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let questions = if self.questions == 1 { "question" } else { "questions" };
        let fate = if self.kept { "kept" } else { "left out" };
        write!(f, "{}: {} {questions} {fate}", self.problem, self.questions)
    }
}

/// A row that is not usable, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    pub source: String,
    /// The line in a JSONL file, the number of the row in a list; counted from 1.
    pub row: usize,
    pub id: Option<String>,
    pub error: RowError,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {}", self.source, self.row)?;
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
    #[error("the line is not JSON: {0}")]
    NotJson(String),
    #[error("the row is not a JSON object")]
    NotObject,
    #[error("the field {0} is missing, empty or not a text")]
    Missing(&'static str),
    #[error("the id is neither a text nor a whole number")]
    Id,
    #[error("the id was used before, in row {0}")]
    Duplicate(usize),
    #[error("tables.json has no database {0}")]
    UnknownDatabase(String),
}

/// Why nothing could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the file {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the file {} begins as a JSON list but is not one: {what}", path.display())]
    Format { path: PathBuf, what: String },
}

/// Fields of the published rows that only say the query again in other forms.
const REPEATED_FIELDS: [&str; 4] = ["sql", "query_toks", "query_toks_no_value", "question_toks"];

impl Spider {
    /// Loads a file of questions. Task ids are the rows' own where those are texts, else the
    /// file's name with the row's number (`dev-17`, counted from 0): numbers alone would
    /// repeat from file to file. Labels: `hardness`, where the reference query parses, and
    /// `database`.
    ///
    /// # Errors
    /// Only where the file itself cannot be read; what else is wrong is in the result.
    pub fn load(
        &self,
        path: impl AsRef<Path>,
        without_rows: WithoutRows,
    ) -> Result<Loaded, LoadError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path)
            .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_start_matches('\u{feff}');
        let mut collector = Collector {
            spider: self,
            without_rows,
            source: path.display().to_string(),
            prefix: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            seen: HashMap::new(),
            unusable: BTreeMap::new(),
            loaded: Loaded::default(),
        };
        if text.trim_start().starts_with('[') {
            let rows: Vec<Value> = serde_json::from_str(text).map_err(|error| {
                LoadError::Format { path: path.to_owned(), what: error.to_string() }
            })?;
            for (index, row) in rows.into_iter().enumerate() {
                collector.take(index, index + 1, Ok(row));
            }
        } else {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            for (place, (index, line)) in lines.enumerate() {
                let row = serde_json::from_str(line).map_err(|e| RowError::NotJson(e.to_string()));
                collector.take(place, index + 1, row);
            }
        }
        Ok(collector.finish())
    }
}

struct Collector<'a> {
    spider: &'a Spider,
    without_rows: WithoutRows,
    source: String,
    /// What numbered ids begin with.
    prefix: String,
    /// Row by id.
    seen: HashMap<String, usize>,
    unusable: BTreeMap<String, UnusableDatabase>,
    loaded: Loaded,
}

impl Collector<'_> {
    /// Takes the row at `place` among the rows; `row` is its number for people.
    fn take(&mut self, place: usize, row: usize, content: Result<Value, RowError>) {
        let content = content.and_then(|value| match value {
            Value::Object(fields) => Ok(fields),
            _ => Err(RowError::NotObject),
        });
        let id = content.as_ref().map_err(Clone::clone).and_then(|f| self.id(f, place));
        let shown = id.as_ref().ok().cloned();
        let task = content.and_then(|fields| self.task(id?, fields, row));
        match task {
            Ok(task) if self.usable(&task) => self.loaded.tasks.push(task),
            Ok(_) => {}
            Err(error) => {
                let source = self.source.clone();
                self.loaded.rejected.push(Rejected { source, row, id: shown, error });
            }
        }
    }

    fn id(&self, fields: &Map<String, Value>, place: usize) -> Result<String, RowError> {
        match fields.get("id") {
            Some(Value::String(id)) if !id.trim().is_empty() => Ok(id.clone()),
            Some(Value::Number(id)) if !id.is_f64() => Ok(format!("{}-{id}", self.prefix)),
            None | Some(Value::Null) => Ok(format!("{}-{place}", self.prefix)),
            Some(_) => Err(RowError::Id),
        }
    }

    fn task(
        &mut self,
        id: String,
        mut fields: Map<String, Value>,
        row: usize,
    ) -> Result<Task, RowError> {
        let question = required(&mut fields, "question")?;
        let gold = required(&mut fields, "query")?;
        let database = required(&mut fields, DATABASE_FIELD)?;
        if !self.spider.knows(&database) {
            return Err(RowError::UnknownDatabase(database));
        }
        if let Some(&before) = self.seen.get(&id) {
            return Err(RowError::Duplicate(before));
        }
        self.seen.insert(id.clone(), row);
        let hardness = self.spider.hardness(&database, &gold).ok();
        let labels = hardness
            .map(|hardness| ("hardness".to_owned(), hardness.to_string()))
            .into_iter()
            .chain([("database".to_owned(), database.clone())])
            .collect();
        for field in REPEATED_FIELDS.iter().chain(&["id"]) {
            fields.shift_remove(*field);
        }
        fields.insert(DATABASE_FIELD.to_owned(), database.into());
        Ok(Task { id, question, gold, labels, fields })
    }

    /// Whether the task's database can be used; if not, it is noted.
    fn usable(&mut self, task: &Task) -> bool {
        let id = task.label("database").unwrap_or_default();
        if let Some(noted) = self.unusable.get_mut(id) {
            noted.questions += 1;
            return noted.kept;
        }
        let problem = match self.spider.databases().get(id) {
            Ok(database) if database.has_rows() => return true,
            Ok(_) => DatabaseProblem::WithoutRows(id.to_owned()),
            Err(error) => DatabaseProblem::Unusable(error),
        };
        let kept = matches!(problem, DatabaseProblem::WithoutRows(_))
            && self.without_rows == WithoutRows::Keep;
        let noted = UnusableDatabase { id: id.to_owned(), questions: 1, kept, problem };
        self.unusable.insert(id.to_owned(), noted);
        kept
    }

    fn finish(mut self) -> Loaded {
        self.loaded.databases = self.unusable.into_values().collect();
        self.loaded
    }
}

fn required(fields: &mut Map<String, Value>, field: &'static str) -> Result<String, RowError> {
    // `shift_remove` keeps the order of the other fields.
    match fields.shift_remove(field) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        _ => Err(RowError::Missing(field)),
    }
}
