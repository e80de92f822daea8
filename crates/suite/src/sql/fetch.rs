//! Downloads Spider from the hub: questions, schemas and databases in the official layout.
//!
//! Some repositories contain the complete dataset, others only its questions. Downloads what
//! exists, and reports where to get the rest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_core::rows;
use leyden_hub::{Hub, Repository, parquet::is_parquet};
use leyden_spider::loader::WithoutRows;
use leyden_spider::{Limits, Spider};
use leyden_train::progress::Progress;
use serde_json::Map;

use crate::fetch::{JsonlFiles, Written, make_folder, split, temporary_path};
use crate::table::counted;

/// Home page of the complete dataset.
const HOME: &str = "https://yale-lily.github.io/spider";

const REQUIRED: &[&str] = &["db_id", "question", "query"];

/// Prefixes of the names of question files.
const SPLITS: [&str; 4] = ["train", "dev", "validation", "test"];

/// Downloads questions, `tables.json` and databases of the dataset `id` into `out`.
///
/// # Errors
/// Errors of the hub and of the file system; a dataset without questions.
pub fn fetch(hub: &Hub, id: &str, out: &Path) -> Result<Written> {
    let repository = Repository::dataset(id);
    let files = hub.files(&repository)?;
    let found = Found::among(&files);
    if found.questions.is_empty() {
        bail!("{repository} has no questions: no file train*.json, dev*.json or *.parquet");
    }
    let mut written = questions(hub, &repository, &found, out)?;
    if let Some(file) = found.tables {
        copy(hub, &repository, file, &out.join("tables.json"))?;
    }
    // Many small files share one progress bar.
    let silent = hub.clone().with_progress(false);
    let mut progress = Progress::new("databases", found.databases.len() as u64, 0);
    for (done, file) in found.databases.iter().enumerate() {
        copy(&silent, &repository, file, &out.join(found.within(file)))?;
        progress.update(done as u64 + 1, || (*file).clone());
    }
    progress.end();
    written.notes.extend(state(&repository, &found, &written, out)?);
    Ok(written)
}

/// The files of the dataset among those of a repository.
#[derive(Debug, PartialEq)]
struct Found<'a> {
    /// The folder of `tables.json` with a trailing slash, or empty.
    folder: &'a str,
    tables: Option<&'a String>,
    questions: Vec<&'a String>,
    databases: Vec<&'a String>,
}

impl<'a> Found<'a> {
    fn among(files: &'a [String]) -> Self {
        // Of several, such as one for hidden tests, the one at the lowest depth.
        let tables = files.iter().filter(|file| name(file) == "tables.json");
        let tables = tables.min_by_key(|file| file.matches('/').count());
        let folder = tables.map_or("", |file| file.strip_suffix("tables.json").unwrap_or(""));
        let is_question = |file: &&String| {
            let named = SPLITS.iter().any(|split| name(file).starts_with(split));
            let json = file.ends_with(".json") || file.ends_with(".jsonl");
            let own = file.strip_prefix(folder).is_some_and(|rest| !rest.contains('/'));
            file.ends_with(".parquet") || (named && json && own)
        };
        let is_database = |file: &&String| {
            let parts: Vec<&str> =
                file.strip_prefix(folder).unwrap_or_default().split('/').collect();
            parts.len() == 3 && parts[0] == "database" && parts[2].ends_with(".sqlite")
        };
        Self {
            folder,
            tables,
            questions: files.iter().filter(is_question).collect(),
            databases: files.iter().filter(is_database).collect(),
        }
    }

    /// A file's path within the dataset.
    fn within<'f>(&self, file: &'f str) -> &'f str {
        file.strip_prefix(self.folder).unwrap_or(file)
    }
}

/// The last component of a path on the hub.
fn name(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}

/// Downloads the files of questions: JSON unchanged, Parquet converted to JSONL.
fn questions(hub: &Hub, repository: &Repository, found: &Found<'_>, out: &Path) -> Result<Written> {
    let (parquet, json): (Vec<&String>, Vec<&String>) =
        found.questions.iter().copied().partition(|file| is_parquet(Path::new(file)));
    let mut written = Written::default();
    if !parquet.is_empty() {
        let mut files = JsonlFiles::new(out, REQUIRED);
        for file in parquet {
            let path = hub.fetch(repository, file)?;
            files.file(&path, |_| PathBuf::from(format!("{}.jsonl", split(file))))?;
        }
        written = files.finish()?;
    }
    for file in json {
        let path = out.join(found.within(file));
        copy(hub, repository, file, &path)?;
        let read = rows::load(&path, question)?;
        written.rejected += read.rejected.len();
        if let Some(first) = read.rejected.first() {
            written.first.get_or_insert_with(|| first.to_string());
        }
        written.files.push((path, read.tasks.len()));
    }
    Ok(written)
}

/// Checks the required fields of a row; its database is checked later.
fn question(
    mut row: Map<String, serde_json::Value>,
    place: rows::Place,
) -> Result<Task, rows::RowError> {
    let mut text = |field| rows::required(&mut row, field);
    let (question, gold) = (text("question")?, text("query")?);
    text("db_id")?;
    let (labels, fields) = (Vec::new(), Map::new());
    Ok(Task { id: place.index.to_string(), question, gold, labels, fields })
}

/// Downloads a file to `path`.
fn copy(hub: &Hub, repository: &Repository, file: &str, path: &Path) -> Result<()> {
    let from = hub.fetch(repository, file)?;
    make_folder(path)?;
    fs::copy(&from, temporary_path(path))
        .and_then(|_| fs::rename(temporary_path(path), path))
        .with_context(|| path.display().to_string())
}

/// Messages about missing or unusable parts of the downloaded dataset.
fn state(
    repository: &Repository,
    found: &Found<'_>,
    written: &Written,
    out: &Path,
) -> Result<Vec<String>> {
    let missing = match (found.tables.is_some(), found.databases.is_empty()) {
        (true, false) => None,
        (false, false) => Some("no tables.json"),
        (true, true) => Some("no databases"),
        (false, true) => Some("neither tables.json nor databases"),
    };
    if let Some(missing) = missing {
        return Ok(vec![format!(
            "{repository} has {missing}: download the dataset from {HOME} and put its \
             tables.json and its folder database/ into {}",
            out.display()
        )]);
    }
    let databases = counted(found.databases.len(), "database");
    let mut notes = vec![format!("{databases} in {}", out.join("database").display())];
    let spider = Spider::open(out, Limits::default())?;
    for (path, _) in &written.files {
        let loaded = spider.load(path, WithoutRows::LeaveOut)?;
        notes.extend(loaded.databases.iter().map(|d| format!("{}: {d}", path.display())));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dataset_is_found_wherever_its_tables_are() {
        let files = [
            "README.txt",
            "dataset/spider/database/a/a.sqlite",
            "dataset/spider/database/a/schema.sql",
            "dataset/spider/dev.json",
            "dataset/spider/dev_gold.sql",
            "dataset/spider/tables.json",
            "dataset/spider/test_data/dev.json",
            "dataset/spider/test_data/tables.json",
            "dataset/spider/test_database/b/b.sqlite",
            "dataset/spider/train_spider.json",
            "train.json",
        ]
        .map(str::to_owned);
        let found = Found::among(&files);
        assert_eq!(found.folder, "dataset/spider/");
        assert_eq!(found.questions, [&files[3], &files[9]]);
        assert_eq!(found.databases, [&files[1]]);
        assert_eq!(found.within(&files[1]), "database/a/a.sqlite");
    }

    #[test]
    fn questions_alone_are_found_too() {
        let files = ["spider/train-00000-of-00001.parquet", "train.json"].map(str::to_owned);
        let found = Found::among(&files);
        assert_eq!((found.folder, found.tables, found.databases.len()), ("", None, 0));
        assert_eq!(found.questions, [&files[0], &files[1]]);
    }
}
