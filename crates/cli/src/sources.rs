//! Where tasks come from, by the names that experiments and commands use.
//!
//! `mini-calc`, or the path of a Calc-X file (`.jsonl` or the hub's `.parquet`), with an
//! optional range of rows: `data/calcx/svamp.jsonl:700..1000`.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use leyden_calcx::loader::{self, Loaded};
use leyden_core::Task;
use leyden_mini::MiniCalc;
use serde_json::{Value, json};

/// A source of tasks by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    MiniCalc,
    File { path: PathBuf, rows: Option<Range<usize>> },
}

impl Source {
    /// Reads a source's name.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "mini-calc" {
            return Ok(Self::MiniCalc);
        }
        let (path, rows) = match text.rsplit_once(':') {
            Some((path, range)) if range.contains("..") => {
                let (start, end) = range.split_once("..").unwrap_or(("", ""));
                let number = |s: &str, default: usize| {
                    if s.is_empty() { Ok(default) } else { s.parse() }
                };
                let rows = number(start, 0)
                    .and_then(|start| Ok(start..number(end, usize::MAX)?))
                    .with_context(|| {
                    format!("`{text}`: the rows after the colon must be like 10..20")
                })?;
                (path, Some(rows))
            }
            _ => (text, None),
        };
        Ok(Self::File { path: PathBuf::from(path), rows })
    }
}

/// Tasks of a file, with what was wrong with it.
pub fn load(path: &std::path::Path) -> Result<Loaded> {
    let parquet = path.extension().is_some_and(|e| e == "parquet");
    if parquet {
        let rows = leyden_hub::parquet::rows(path)?;
        Ok(loader::from_rows(rows, &path.display().to_string()))
    } else {
        Ok(loader::from_file(path)?)
    }
}

/// The tasks that `names` stand for, and a description with hashes for the provenance.
///
/// A malformed row is named on standard error and left out; a file without any good row is
/// an error.
pub fn tasks(
    names: &[String],
    limit: usize,
    mini: &MiniCalc,
    mini_tasks: usize,
) -> Result<(Vec<Task>, Value)> {
    let mut all = Vec::new();
    let mut described = Vec::new();
    for name in names {
        let mut tasks = match Source::parse(name)? {
            Source::MiniCalc => {
                described.push(json!({ "source": name, "tasks": mini_tasks }));
                mini.test(mini_tasks)
            }
            Source::File { path, rows } => {
                let loaded = load(&path)?;
                for rejected in loaded.rejected.iter().take(5) {
                    eprintln!("left out: {rejected}");
                }
                if loaded.rejected.len() > 5 {
                    eprintln!(
                        "left out: {} more rows of {}",
                        loaded.rejected.len() - 5,
                        path.display()
                    );
                }
                let total = loaded.tasks.len();
                let tasks: Vec<Task> = match rows {
                    Some(rows) if rows.start >= total || rows.is_empty() => {
                        bail!("{name}: the file has {total} good rows");
                    }
                    Some(rows) => loaded.tasks[rows.start..rows.end.min(total)].to_vec(),
                    None => loaded.tasks,
                };
                described.push(json!({
                    "source": name,
                    "tasks": tasks.len(),
                    "rejected": loaded.rejected.len(),
                    "sha256": leyden_train::provenance::hash_file(&path)?,
                }));
                tasks
            }
        };
        if tasks.is_empty() {
            bail!("{name}: there is no good row in it");
        }
        if limit > 0 {
            tasks.truncate(limit);
        }
        all.extend(tasks);
    }
    Ok((all, Value::Array(described)))
}
