//! Sources of tasks by name.
//!
//! A name is a generated world, or the path of a file of tasks with an optional range of rows:
//! `data/calcx/svamp.jsonl:700..1000`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use serde_json::{Value, json};

use crate::benchmark::{Dataset, LoadedTasks, World};
use crate::registry::Registry;
use crate::table::counted;

/// A parsed source of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A generated world, by its name.
    World(&'static str),
    File {
        path: PathBuf,
        rows: Option<Range<usize>>,
    },
}

impl Source {
    /// Parses a source's name.
    ///
    /// # Errors
    /// An invalid range of rows.
    pub fn parse(text: &str, registry: &Registry) -> Result<Self> {
        if let Some((world, _)) = registry.world(text) {
            return Ok(Self::World(world.name));
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

/// Rejects a path that does not exist, which is most likely a misspelt world.
///
/// # Errors
/// The path does not exist; the message lists the worlds.
pub fn check_exists(path: &Path, registry: &Registry) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let worlds: Vec<&str> = registry.worlds().map(|(world, _)| world.name).collect();
    bail!("{}: there is no such file; the worlds are {}", path.display(), worlds.join(", "));
}

/// Keeps the range `rows` of a file's tasks; `name` is the source's name for messages.
pub fn cut(mut read: LoadedTasks, rows: Option<Range<usize>>, name: &str) -> Result<LoadedTasks> {
    if let Some(rows) = rows {
        let total = read.tasks.len();
        if rows.start >= total || rows.is_empty() {
            bail!("{name}: the file has {}", counted(total, "valid row"));
        }
        read.tasks.truncate(rows.end.min(total));
        read.tasks.drain(..rows.start);
    }
    Ok(read)
}

/// Maximum number of reported rejected rows per file.
const NAMED: usize = 5;

/// Reports a file's notes and rejected rows on standard error.
pub fn report(read: &LoadedTasks, path: &Path) {
    for note in &read.notes {
        eprintln!("{note}");
    }
    for rejected in read.rejected.iter().take(NAMED) {
        eprintln!("left out: {rejected}");
    }
    if read.rejected.len() > NAMED {
        eprintln!("left out: {} more rows of {}", read.rejected.len() - NAMED, path.display());
    }
}

/// Which tasks of a source are taken.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// At most so many of each source; 0 is all.
    pub limit: usize,
    /// Labels, name and value, of tasks that are left out.
    pub exclude: Vec<(String, String)>,
}

impl Selection {
    /// Parses excluded labels of the form `name=value`.
    ///
    /// # Errors
    /// Another form.
    pub fn new(limit: usize, exclude: &[String]) -> Result<Self> {
        let parse = |text: &String| match text.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => bail!("data.train_exclude: `{text}` is not of the form name=value"),
        };
        Ok(Self { limit, exclude: exclude.iter().map(parse).collect::<Result<_>>()? })
    }

    /// Removes what is not selected; returns how many were excluded by a label.
    fn apply(&self, tasks: &mut Vec<Task>) -> usize {
        let before = tasks.len();
        tasks.retain(|task| self.exclude.iter().all(|label| !task.labels.contains(label)));
        let excluded = before - tasks.len();
        if self.limit > 0 {
            tasks.truncate(self.limit);
        }
        excluded
    }
}

/// The tasks of the sources `names` that are selected (of a world, `of_world`), and a description
/// with hashes for the provenance.
///
/// Malformed rows are reported on standard error and skipped.
///
/// # Errors
/// An invalid source, a world of another agent, a file without valid rows.
pub fn tasks(
    registry: &Registry,
    names: &[String],
    selection: &Selection,
    dataset: &dyn Dataset,
    of_world: usize,
) -> Result<(Vec<Task>, Value)> {
    let mut all = Vec::new();
    let mut described = Vec::new();
    for name in names {
        let mut tasks = match Source::parse(name, registry)? {
            Source::World(world) => {
                let world = world_of(registry, world, dataset)?;
                described.push(json!({ "source": name, "tasks": of_world }));
                world.test(of_world)
            }
            Source::File { path, rows } => {
                check_exists(&path, registry)?;
                let read = dataset.read(&path)?;
                report(&read, &path);
                let rejected = read.rejected.len();
                let read = cut(read, rows, name)?;
                described.push(json!({
                    "source": name,
                    "tasks": read.tasks.len(),
                    "rejected": rejected,
                    "notes": read.notes,
                    "sha256": leyden_train::provenance::hash_file(&path)?,
                }));
                read.tasks
            }
        };
        if tasks.is_empty() {
            bail!("{name}: the file has no valid rows");
        }
        let excluded = selection.apply(&mut tasks);
        if excluded > 0 {
            let of = described.last_mut().and_then(Value::as_object_mut);
            of.map(|of| of.insert("excluded".to_owned(), excluded.into()));
            eprintln!("{name}: {} left out by data.train_exclude", counted(excluded, "task"));
        }
        if tasks.is_empty() {
            bail!("{name}: data.train_exclude leaves no task");
        }
        all.extend(tasks);
    }
    Ok((all, Value::Array(described)))
}

/// The world of this name, which must be one of the dataset's.
///
/// # Errors
/// The world belongs to another agent.
pub fn world_of(registry: &Registry, world: &str, dataset: &dyn Dataset) -> Result<Arc<dyn World>> {
    dataset.world(world).with_context(|| {
        let agent = registry.world(world).map_or("", |(_, benchmark)| benchmark.name());
        let others = registry.worlds().map(|(other, _)| other.name);
        let own: Vec<&str> = others.filter(|other| dataset.world(other).is_some()).collect();
        let own = match own.as_slice() {
            [] => "this experiment's agent has none".to_owned(),
            own => format!("this experiment's agent has {}", own.join(" and ")),
        };
        format!("{world} is a world of the agent {agent}; {own}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_world_or_a_file_with_rows() {
        let registry = crate::registry();
        let parse = |text| Source::parse(text, &registry);
        assert_eq!(parse("mini-spider").unwrap(), Source::World("mini-spider"));
        let file = |path: &str, rows| Source::File { path: PathBuf::from(path), rows };
        assert_eq!(parse("a/b.json").unwrap(), file("a/b.json", None));
        assert_eq!(parse("a.jsonl:3..7").unwrap(), file("a.jsonl", Some(3..7)));
        assert_eq!(parse("a.jsonl:3..").unwrap(), file("a.jsonl", Some(3..usize::MAX)));
        assert!(parse("a.jsonl:3..x").unwrap_err().to_string().contains("10..20"));
    }

    #[test]
    fn a_range_beyond_the_file_is_rejected() {
        let task = |i: usize| Task {
            id: i.to_string(),
            question: "q".to_owned(),
            gold: "g".to_owned(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        };
        let rows = || LoadedTasks { tasks: (0..4).map(task).collect(), ..LoadedTasks::default() };
        let ids = |read: LoadedTasks| read.tasks.into_iter().map(|t| t.id).collect::<Vec<_>>();
        assert_eq!(ids(cut(rows(), Some(1..3), "f").unwrap()), ["1", "2"]);
        assert_eq!(ids(cut(rows(), Some(3..usize::MAX), "f").unwrap()), ["3"]);
        assert!(
            cut(rows(), Some(4..5), "f").is_err_and(|e| e.to_string().contains("4 valid rows"))
        );
        assert!(cut(rows(), Some(2..2), "f").is_err());
    }
}
