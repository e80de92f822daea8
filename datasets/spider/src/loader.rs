//! Loads Spider's questions as tasks.
//!
//! A file is a JSON list, as published, or JSONL with one question per line. Bad rows and unusable
//! databases are neither fatal nor silent: they are returned with the result, databases with the
//! number of their questions, so that the caller can report them and continue.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use leyden_core::Task;
use leyden_core::rows::{self, Place, id_or_default, own_labels, required};
pub use leyden_core::rows::{LoadError, Rejected, RowError};
use serde_json::{Map, Value};

use crate::database::DatabaseError;
use crate::scorer::DATABASE_FIELD;
use crate::spider::Spider;

/// Treatment of questions about databases without rows, on which every query with an empty result
/// is correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutRows {
    LeaveOut,
    Keep,
}

/// Result of loading a file.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In the order of the file.
    pub tasks: Vec<Task>,
    /// Unusable rows.
    pub rejected: Vec<Rejected>,
    /// Unusable databases, by name, with the number of their questions.
    pub databases: Vec<UnusableDatabase>,
}

/// A database that cannot or should not be used.
#[derive(Debug, Clone, PartialEq)]
pub struct UnusableDatabase {
    pub id: String,
    /// Number of questions about it in the file.
    pub questions: usize,
    /// Whether these questions are nevertheless among the tasks.
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
        let outcome = if self.kept { "kept" } else { "left out" };
        write!(f, "{}: {} {questions} {outcome}", self.problem, self.questions)
    }
}

/// Fields of the published rows that only repeat the query or question in other forms.
const REPEATED_FIELDS: [&str; 4] = ["sql", "query_toks", "query_toks_no_value", "question_toks"];

impl Spider {
    /// Loads a file of questions. Task ids are the rows' ids if those are strings, else the file
    /// name with the row's number (`dev-17`, from 0), because bare numbers would repeat across
    /// files. Labels: those of the row, and unless among them `hardness`, if the reference query
    /// parses, and `database`.
    ///
    /// # Errors
    /// Only if the file itself cannot be read; other problems are in the result.
    pub fn load(
        &self,
        path: impl AsRef<Path>,
        without_rows: WithoutRows,
    ) -> Result<Loaded, LoadError> {
        let path = path.as_ref();
        let read = rows::load(path, |row, place| self.task(row, place, path))?;
        Ok(self.usable(read, without_rows))
    }

    /// Like [`Spider::load`], but from rows of another reader; `path` identifies their source.
    pub fn load_rows<E: fmt::Display>(
        &self,
        rows: impl IntoIterator<Item = Result<Map<String, Value>, E>>,
        path: impl AsRef<Path>,
        without_rows: WithoutRows,
    ) -> Loaded {
        let path = path.as_ref();
        let readable = |row: Result<_, E>| row.map_err(|e| RowError::Unreadable(e.to_string()));
        let rows = rows.into_iter().map(readable);
        let name = path.display().to_string();
        let read = rows::collect(rows, &name, |row, place| self.task(row, place, path));
        self.usable(read, without_rows)
    }

    /// Removes the tasks of unusable databases.
    fn usable(&self, read: rows::Loaded, without_rows: WithoutRows) -> Loaded {
        let mut unusable = Unusable { spider: self, without_rows, databases: BTreeMap::new() };
        let mut tasks: Vec<Task> =
            read.tasks.into_iter().filter(|task| unusable.admits(task)).collect();
        self.label_gold_results(&mut tasks);
        let databases = unusable.databases.into_values().collect();
        Loaded { tasks, rejected: read.rejected, databases }
    }

    fn task(
        &self,
        mut fields: Map<String, Value>,
        place: Place,
        path: &Path,
    ) -> Result<Task, RowError> {
        let id = id_or_default(&mut fields, path, place)?;
        let question = required(&mut fields, "question")?;
        let gold = required(&mut fields, "query")?;
        let database = required(&mut fields, DATABASE_FIELD)?;
        if !self.knows(&database) {
            return Err(RowError::Unfit(format!("tables.json has no database {database}")));
        }
        let mut labels: Vec<(String, String)> = own_labels(&fields).collect();
        let hardness = self.hardness(&database, &gold).ok().map(|hardness| hardness.to_string());
        for (name, value) in [("hardness", hardness), ("database", Some(database.clone()))] {
            if let Some(value) = value.filter(|_| labels.iter().all(|(known, _)| known != name)) {
                labels.push((name.to_owned(), value));
            }
        }
        for field in REPEATED_FIELDS {
            fields.shift_remove(field);
        }
        fields.insert(DATABASE_FIELD.to_owned(), database.into());
        Ok(Task { id, question, gold, labels, fields })
    }
}

/// Collects unusable databases.
struct Unusable<'a> {
    spider: &'a Spider,
    without_rows: WithoutRows,
    databases: BTreeMap<String, UnusableDatabase>,
}

impl Unusable<'_> {
    /// Whether the task's database is usable; records it if not.
    fn admits(&mut self, task: &Task) -> bool {
        let id = task.fields.get(DATABASE_FIELD).and_then(Value::as_str).unwrap_or_default();
        if let Some(noted) = self.databases.get_mut(id) {
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
        self.databases.insert(id.to_owned(), noted);
        kept
    }
}
