//! The hub's Calc-X as JSONL files: one for each source and split.
//!
//! The hub keeps Parquet files in which all sources are mixed; experiments name files. Rows
//! are written as they come, so that the largest split needs no memory; files are written
//! aside and renamed at the end, so that an interrupted download leaves none that looks whole.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leyden_hub::{Hub, Repository, parquet};
use leyden_train::progress::Progress;
use serde_json::{Map, Value};

use crate::table::{Side, aligned, counted};

/// What was written.
pub struct Written {
    /// Path and rows.
    files: Vec<(PathBuf, usize)>,
    /// Rows that could not be read or lack what a task needs, with the first of them.
    rejected: usize,
    first: Option<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Vec<String>> = self
            .files
            .iter()
            .map(|(path, rows)| vec![rows.to_string(), path.display().to_string()])
            .collect();
        f.write_str(&aligned(&rows, &[Side::Right]))?;
        if let Some(first) = &self.first {
            writeln!(f, "left out: {} (first: {first})", counted(self.rejected, "row"))?;
        }
        Ok(())
    }
}

/// Downloads the Parquet files of the dataset `id` and writes them as JSONL into `out`.
pub fn fetch(id: &str, out: &Path) -> Result<Written> {
    let hub = Hub::from_env().with_progress(true);
    let repository = Repository::dataset(id);
    let files = hub.files(&repository)?;
    let parquet: Vec<&String> = files.iter().filter(|file| file.ends_with(".parquet")).collect();
    if parquet.is_empty() {
        bail!("{repository} has no Parquet file");
    }
    let mut paths = Vec::new();
    for file in parquet {
        paths.push((place(file), hub.fetch(&repository, file)?));
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut splitter = Splitter::new(out);
    for (place, path) in &paths {
        splitter.file(place, path)?;
    }
    splitter.finish()
}

/// Where the rows of a file of the repository belong: a folder (empty for the main part of
/// the dataset) and a split.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    folder: String,
    split: String,
}

/// `data/train-00000-of-00002-abc.parquet` → split `train`; a folder other than `data` is
/// another configuration of the dataset and keeps its name.
fn place(file: &str) -> Place {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let stem = name.strip_suffix(".parquet").unwrap_or(name);
    let split = stem.split(['-', '.']).next().filter(|split| !split.is_empty()).unwrap_or("all");
    let folder = folder.strip_prefix("data").unwrap_or(folder).trim_start_matches('/');
    Place { folder: file_name(folder), split: file_name(split) }
}

/// A text of the dataset as part of a file's name.
fn file_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    text.chars().map(plain).collect()
}

/// Deals rows out to files.
struct Splitter<'a> {
    out: &'a Path,
    open: BTreeMap<PathBuf, (BufWriter<File>, usize)>,
    rejected: usize,
    first: Option<String>,
}

impl<'a> Splitter<'a> {
    fn new(out: &'a Path) -> Self {
        Self { out, open: BTreeMap::new(), rejected: 0, first: None }
    }

    fn file(&mut self, place: &Place, path: &Path) -> Result<()> {
        let rows = parquet::rows(path)?;
        let progress = Progress::new(&place.split, rows.row_count() as u64, 0);
        let rows = rows.map(|row| row.map_err(|error| error.to_string()));
        self.rows(place, &path.display().to_string(), rows, progress)
    }

    fn rows(
        &mut self,
        place: &Place,
        name: &str,
        rows: impl Iterator<Item = Result<Map<String, Value>, String>>,
        mut progress: Progress,
    ) -> Result<()> {
        let mut count = 0;
        for row in rows {
            count += 1;
            let row = row.and_then(|row| match missing(&row) {
                None => Ok(row),
                Some(field) => Err(format!("{name}, row {count}: the field {field} is no text")),
            });
            match row {
                Ok(row) => self.row(place, &row)?,
                Err(what) => {
                    self.rejected += 1;
                    self.first.get_or_insert(what);
                }
            }
            if count % 1000 == 0 {
                progress.update(count, String::new);
            }
        }
        progress.update(count, String::new);
        progress.end();
        Ok(())
    }

    fn row(&mut self, place: &Place, row: &Map<String, Value>) -> Result<()> {
        let source = row.get("source").and_then(Value::as_str).or_else(|| source_of_id(row));
        let name = format!("{}_{}.jsonl", file_name(source.unwrap_or("calcx")), place.split);
        let path = self.out.join(&place.folder).join(name);
        let failed = |path: &Path| path.display().to_string();
        if !self.open.contains_key(&path) {
            fs::create_dir_all(self.out.join(&place.folder)).with_context(|| failed(&path))?;
            let file = File::create(aside(&path)).with_context(|| failed(&path))?;
            self.open.insert(path.clone(), (BufWriter::new(file), 0));
        }
        if let Some((file, count)) = self.open.get_mut(&path) {
            serde_json::to_writer(&mut *file, row).with_context(|| failed(&path))?;
            file.write_all(b"\n").with_context(|| failed(&path))?;
            *count += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Written> {
        let mut files = Vec::new();
        for (path, (mut file, count)) in self.open {
            let done = file.flush().and_then(|()| file.get_ref().sync_all());
            done.and_then(|()| fs::rename(aside(&path), &path))
                .with_context(|| path.display().to_string())?;
            files.push((path, count));
        }
        if files.is_empty() {
            let first = self.first.unwrap_or_else(|| "the files are empty".to_owned());
            bail!("nothing could be written: no row has id, question and result ({first})");
        }
        Ok(Written { files, rejected: self.rejected, first: self.first })
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("jsonl.tmp")
}

/// The first field that a task needs and this row lacks.
fn missing(row: &Map<String, Value>) -> Option<&'static str> {
    let lacks = |field: &&str| !row.get(*field).is_some_and(|value| value.is_string());
    ["id", "question", "result"].into_iter().find(|field| lacks(field))
}

/// `gsm8k__abc` → `gsm8k`.
fn source_of_id(row: &Map<String, Value>) -> Option<&str> {
    row.get("id")?.as_str()?.split_once("__").map(|(source, _)| source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_of_the_repository_have_their_places() {
        for (file, folder, split) in [
            ("data/train-00000-of-00002-5f.parquet", "", "train"),
            ("original-splits/test-00000-of-00001.parquet", "original-splits", "test"),
            ("validation.parquet", "", "validation"),
            ("a/b/train.parquet", "a_b", "train"),
        ] {
            let expected = Place { folder: folder.to_owned(), split: split.to_owned() };
            assert_eq!(place(file), expected, "{file}");
        }
    }

    fn row(id: &str, source: Option<&str>) -> Map<String, Value> {
        let mut row = Map::new();
        row.insert("id".to_owned(), json!(id));
        row.insert("question".to_owned(), json!("q"));
        row.insert("result".to_owned(), json!("1"));
        if let Some(source) = source {
            row.insert("source".to_owned(), json!(source));
        }
        row
    }

    #[test]
    fn rows_are_dealt_out_by_source_and_split_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut splitter = Splitter::new(folder.path());
        let train = place("data/train-0.parquet");
        splitter.row(&train, &row("gsm8k__1", Some("gsm8k"))).unwrap();
        splitter.row(&train, &row("gsm8k__2", None)).unwrap();
        splitter.row(&place("data/test-0.parquet"), &row("x", Some("../../x"))).unwrap();
        assert!(!folder.path().join("gsm8k_train.jsonl").exists());
        let written = splitter.finish().unwrap();
        let names: Vec<_> = written
            .files
            .iter()
            .map(|(path, count)| (path.strip_prefix(folder.path()).unwrap().to_owned(), *count))
            .collect();
        let expected = [("______x_test.jsonl", 1), ("gsm8k_train.jsonl", 2)];
        assert_eq!(names, expected.map(|(name, count)| (PathBuf::from(name), count)));
        let loaded =
            leyden_calcx::loader::from_file(folder.path().join("gsm8k_train.jsonl")).unwrap();
        assert_eq!((loaded.tasks.len(), loaded.rejected.len()), (2, 0));
    }

    #[test]
    fn rows_without_what_a_task_needs_are_counted_and_the_first_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut splitter = Splitter::new(folder.path());
        let mut broken = row("b__1", None);
        broken.insert("result".to_owned(), json!(1));
        let rows = [Ok(row("a__1", None)), Ok(broken), Err("page 3 is broken".to_owned())];
        let progress = Progress::new("test", 3, 0);
        splitter.rows(&place("test.parquet"), "x.parquet", rows.into_iter(), progress).unwrap();
        let written = splitter.finish().unwrap();
        assert_eq!(written.files, [(folder.path().join("a_test.jsonl"), 1)]);
        let text = written.to_string();
        let told = "left out: 2 rows (first: x.parquet, row 2: the field result is no text)\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn a_dataset_without_tasks_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let error = Splitter::new(folder.path()).finish().err().map(|error| error.to_string());
        assert!(error.unwrap().starts_with("nothing could be written"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
