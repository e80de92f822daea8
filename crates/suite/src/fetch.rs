//! Writes datasets of the hub as the files that experiments use.
//!
//! Rows are streamed, so that even the largest split needs little memory; files are written to
//! temporary paths and renamed at the end, so that an interrupted download never looks complete.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leyden_core::rows::JsonLines;
use leyden_hub::parquet;
use leyden_train::progress::Progress;
use serde_json::{Map, Value};

use crate::table::{Side, aligned, counted};

/// Summary of the written files.
#[derive(Debug, Default)]
pub struct Written {
    /// Path and number of rows.
    pub(crate) files: Vec<(PathBuf, usize)>,
    /// Number of rows that could not be read or lack required fields.
    pub(crate) rejected: usize,
    /// Message about the first rejected row.
    pub(crate) first: Option<String>,
    /// Other messages for the user.
    pub(crate) notes: Vec<String>,
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
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

/// Distributes rows over JSONL files.
pub struct JsonlFiles<'a> {
    out: &'a Path,
    /// Required text fields of a row.
    required: &'static [&'static str],
    open: BTreeMap<PathBuf, (BufWriter<File>, usize)>,
    rejected: usize,
    first: Option<String>,
}

impl<'a> JsonlFiles<'a> {
    pub fn new(out: &'a Path, required: &'static [&'static str]) -> Self {
        Self { out, required, open: BTreeMap::new(), rejected: 0, first: None }
    }

    /// Adds the rows of a JSONL or Parquet file; `target` maps each row to its file within the
    /// output folder.
    pub fn file(
        &mut self,
        path: &Path,
        target: impl Fn(&Map<String, Value>) -> PathBuf,
    ) -> Result<()> {
        let name = path.display().to_string();
        if parquet::is_parquet(path) {
            let rows = parquet::rows(path)?;
            let total = rows.row_count() as u64;
            let rows = rows.map(|row| row.map_err(|error| error.to_string()));
            return self.rows(&name, total, rows, target);
        }
        let rows = JsonLines::open(path)?.map(|line| match line {
            Ok(line) => line.row.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        });
        self.rows(&name, 0, rows, target)
    }

    fn rows(
        &mut self,
        name: &str,
        total: u64,
        rows: impl Iterator<Item = Result<Map<String, Value>, String>>,
        target: impl Fn(&Map<String, Value>) -> PathBuf,
    ) -> Result<()> {
        let mut progress = Progress::new("rows", total, 0);
        let mut count = 0;
        for row in rows {
            count += 1;
            let row = row.and_then(|row| match self.missing(&row) {
                None => Ok(row),
                Some(field) => Err(format!("the field {field} is not a text")),
            });
            match row {
                Ok(row) => self.row(&target(&row), &row)?,
                Err(what) => {
                    self.rejected += 1;
                    self.first.get_or_insert_with(|| format!("{name}, row {count}: {what}"));
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

    /// The first required field that the row lacks.
    fn missing(&self, row: &Map<String, Value>) -> Option<&'static str> {
        let lacks = |field: &&&str| !row.get(**field).is_some_and(Value::is_string);
        self.required.iter().find(lacks).copied()
    }

    fn row(&mut self, file: &Path, row: &Map<String, Value>) -> Result<()> {
        let path = self.out.join(file);
        let failed = |path: &Path| path.display().to_string();
        if !self.open.contains_key(&path) {
            make_folder(&path)?;
            let file = File::create(temporary_path(&path)).with_context(|| failed(&path))?;
            self.open.insert(path.clone(), (BufWriter::new(file), 0));
        }
        if let Some((file, count)) = self.open.get_mut(&path) {
            serde_json::to_writer(&mut *file, row).with_context(|| failed(&path))?;
            file.write_all(b"\n").with_context(|| failed(&path))?;
            *count += 1;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Written> {
        let mut files = Vec::new();
        for (path, (mut file, count)) in self.open {
            let done = file.flush().and_then(|()| file.get_ref().sync_all());
            done.and_then(|()| fs::rename(temporary_path(&path), &path))
                .with_context(|| path.display().to_string())?;
            files.push((path, count));
        }
        if files.is_empty() {
            let first = self.first.unwrap_or_else(|| "the files are empty".to_owned());
            bail!("nothing could be written: no row has {} ({first})", self.required.join(", "));
        }
        let (rejected, first) = (self.rejected, self.first);
        Ok(Written { files, rejected, first, notes: Vec::new() })
    }
}

/// Creates the folder of a file.
pub fn make_folder(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Temporary path of a file until it is complete.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// The split of a Parquet file of the hub: `data/train-00000-of-00002-abc.parquet` → `train`.
pub fn split(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    let stem = name.strip_suffix(".parquet").unwrap_or(name);
    stem.split(['-', '.']).next().filter(|split| !split.is_empty()).unwrap_or("all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(id: &str) -> Map<String, Value> {
        let Value::Object(row) = json!({ "id": id, "answer": "a" }) else { unreachable!() };
        row
    }

    #[test]
    fn rows_without_required_fields_are_counted_and_the_first_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = JsonlFiles::new(folder.path(), &["id", "answer"]);
        let mut broken = row("b");
        broken.insert("answer".to_owned(), json!(1));
        let rows = [Ok(row("a")), Ok(broken), Err("page 3 is broken".to_owned())];
        files.rows("x.parquet", 3, rows.into_iter(), |_| PathBuf::from("d/a.jsonl")).unwrap();
        assert!(!folder.path().join("d/a.jsonl").exists());
        let written = files.finish().unwrap();
        assert_eq!(written.files, [(folder.path().join("d/a.jsonl"), 1)]);
        let text = written.to_string();
        let expected =
            "left out: 2 rows (first: x.parquet, row 2: the field answer is not a text)\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_dataset_without_tasks_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = JsonlFiles::new(folder.path(), &["id"]);
        let error = files.finish().unwrap_err().to_string();
        assert!(error.starts_with("nothing could be written"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_parquet_file_names_its_split() {
        for (file, expected) in [
            ("data/train-00000-of-00002-5f.parquet", "train"),
            ("validation.parquet", "validation"),
            ("a/b/test.parquet", "test"),
            (".parquet", "all"),
        ] {
            assert_eq!(split(file), expected, "{file}");
        }
    }
}
