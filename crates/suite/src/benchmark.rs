//! The [`Benchmark`] trait: an agent with its tasks, its scorer and everything else specific to
//! it.
//!
//! A [`Benchmark`] is registered once per program; a [`Dataset`] is a benchmark with the settings
//! of one experiment. It reads tasks from files or from its generated world, and then assembles
//! the agent, the scorer and, for supervised training, demonstrations, all over the same
//! databases or corpus.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_core::rows::{LoadError, Loaded};
use leyden_core::{Agent, GoldenReport, Rollout, Scorer, Task};
use leyden_hub::{Hub, parquet};
use leyden_train::config::OwnKey;
use leyden_train::data::DemonstrationSource;
use serde_json::Value;

use crate::describe::Description;
use crate::evaluation::Failure;
use crate::external::Extras;
use crate::fetch::Written;
use crate::predictions::{Files, Scored};
use crate::registry::Registry;
use crate::settings::BenchmarkSettings;

/// An agent with its tasks, its scorer and everything else specific to it.
pub trait Benchmark: Send + Sync {
    /// The name of the agent in experiments: `calc`.
    fn name(&self) -> &'static str;

    /// A description of one or two words, for lists of names.
    fn what(&self) -> &'static str;

    /// Benchmark-specific keys of an experiment file: in `[agent]`, in `[data]`, or in separate
    /// tables. Benchmarks that share a key must declare it identically.
    fn keys(&self) -> Vec<OwnKey> {
        Vec::new()
    }

    /// The criterion of the default reward, for the key reference.
    fn reward(&self) -> &'static str {
        ""
    }

    /// Names of benchmark-specific rewards besides `default`.
    fn rewards(&self) -> &'static [&'static str] {
        &[]
    }

    /// Formats of its task files, for the key reference.
    fn files(&self) -> &'static str {
        ""
    }

    /// Labels by which a sample of its test tasks is stratified.
    fn strata(&self) -> &'static [&'static str] {
        &[]
    }

    /// Default maximum number of model calls per rollout.
    fn max_turns(&self) -> usize {
        4
    }

    /// Creates the dataset for `settings`; `registry` has all benchmarks of the program.
    ///
    /// # Errors
    /// Invalid settings, by key.
    fn prepare(&self, settings: BenchmarkSettings, registry: &Registry)
    -> Result<Box<dyn Dataset>>;

    /// Its generated worlds.
    fn worlds(&self) -> Vec<GeneratedWorld> {
        Vec::new()
    }

    /// Its published dataset, if there is one.
    fn published(&self) -> Option<Published> {
        None
    }

    /// Downloads the published dataset.
    ///
    /// # Errors
    /// Errors of the hub and of the file system; a repository without tasks.
    fn fetch(&self, fetch: &Fetch<'_>) -> Result<Written> {
        bail!("{}: {} has no dataset to fetch", fetch.repository, self.name())
    }

    /// Whether a file belongs to its dataset, by the field names in the file.
    fn recognises(&self, has: &dyn Fn(&str) -> bool) -> bool {
        let _ = has;
        false
    }

    /// Scores a file of predictions like the official evaluator of its dataset.
    ///
    /// # Errors
    /// Files that cannot be read, predictions that do not match the questions.
    fn score(&self, files: &Files, registry: &Registry) -> Result<Scored> {
        let _ = registry;
        bail!("{}: {} has no evaluator", files.gold, self.name())
    }

    /// Why a rollout failed; `reward` is less than 1.
    fn failure(&self, rollout: &Rollout, reward: f64) -> Failure {
        let _ = reward;
        Failure::usual(rollout, rollout.answer.is_some())
    }

    /// Runs as a worker process of this benchmark; see [`crate::worker`].
    ///
    /// # Errors
    /// Where the benchmark has no workers, or the process was not started by one.
    fn work(&self) -> Result<()> {
        bail!("{} has no worker process", self.name())
    }

    /// Golden files that can be recomputed.
    fn golden(&self) -> Vec<Golden> {
        Vec::new()
    }
}

/// A published dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub name: &'static str,
    /// Its default repository on the hub.
    pub repository: &'static str,
}

/// Source and target of a download.
pub struct Fetch<'a> {
    pub hub: &'a Hub,
    /// `owner/name`.
    pub repository: &'a str,
    pub out: &'a Path,
    /// Also download files that tasks do not need.
    pub all: bool,
}

/// A kind of golden file.
pub struct Golden {
    pub name: &'static str,
    /// Recomputes the cases of a file; some kinds need a folder of databases.
    pub check: fn(&Path, Option<&Path>) -> Result<GoldenReport>,
}

/// A generated world by name.
#[derive(Clone, Copy)]
pub struct GeneratedWorld {
    /// Its name among the sources of tasks.
    pub name: &'static str,
    /// Creates it from a seed.
    pub make: fn(u64) -> Arc<dyn World>,
    /// The embedded model that was pretrained on it, if there is one.
    pub model: Option<&'static str>,
    /// Adjusts default settings to those of that pretraining.
    pub configure: fn(&mut BenchmarkSettings),
}

impl GeneratedWorld {
    /// A world that no embedded model knows.
    pub fn new(name: &'static str, make: fn(u64) -> Arc<dyn World>) -> Self {
        Self { name, make, model: None, configure: |_| {} }
    }

    /// The embedded model that was pretrained on it, with these settings.
    #[must_use]
    pub fn pretrained(self, model: &'static str, configure: fn(&mut BenchmarkSettings)) -> Self {
        Self { model: Some(model), configure, ..self }
    }
}

/// A written file or folder of a world: its name, its number of entries, and the noun for one
/// entry.
pub type Entries = (&'static str, usize, &'static str);

/// A generated world: an infinite stream of training tasks, and disjoint test tasks.
pub trait World: Send + Sync {
    fn train(&self, index: u64) -> Task;

    fn test(&self, count: usize) -> Vec<Task>;

    /// Writes `train` and `test` tasks as files in the format of the published dataset.
    ///
    /// # Errors
    /// Errors of the file system.
    fn write(&self, out: &Path, train: u64, test: usize) -> Result<Vec<Entries>>;

    /// A remark for the description of the world.
    fn note(&self) -> Option<String> {
        None
    }
}

/// The tasks of a file, and messages about rejected rows.
#[derive(Default)]
pub struct LoadedTasks {
    pub tasks: Vec<Task>,
    pub rejected: Vec<String>,
    /// Other warnings, such as databases that cannot be used.
    pub notes: Vec<String>,
}

impl From<Loaded> for LoadedTasks {
    fn from(loaded: Loaded) -> Self {
        let rejected = loaded.rejected.iter().map(ToString::to_string).collect();
        Self { tasks: loaded.tasks, rejected, notes: Vec::new() }
    }
}

/// Reads the rows of a file with a dataset's readers for its own format and for Parquet.
///
/// # Errors
/// A file that cannot be read as a whole; bad rows are in the result.
pub fn read_rows(
    path: &Path,
    from_file: impl FnOnce(&Path) -> Result<Loaded, LoadError>,
    from_rows: impl FnOnce(parquet::RowReader, &str) -> Loaded,
) -> Result<LoadedTasks> {
    let loaded = if parquet::is_parquet(path) {
        from_rows(parquet::rows(path)?, &path.display().to_string())
    } else {
        from_file(path)?
    };
    Ok(loaded.into())
}

/// Source of the training tasks.
#[derive(Clone, Copy)]
pub enum Train<'a> {
    /// A generated world, by its name.
    World(&'a str),
    Tasks(&'a [Task]),
}

/// The components of a dataset that are ready to run.
pub struct Assembled {
    pub agent: Arc<dyn Agent>,
    pub scorer: Arc<dyn Scorer>,
    /// Demonstrations of the training tasks, if requested.
    pub demonstrations: Option<Box<dyn DemonstrationSource>>,
    /// Other resources in use (databases, corpus, index), for the provenance.
    pub described: Value,
    /// Files of a generated world, deleted on drop.
    pub folder: Option<tempfile::TempDir>,
    /// Additional inputs of agents outside of this process.
    pub extras: Arc<dyn Extras>,
}

impl Assembled {
    /// An agent and a scorer without other resources.
    pub fn of(agent: impl Agent + 'static, scorer: impl Scorer + 'static) -> Self {
        Self {
            agent: Arc::new(agent),
            scorer: Arc::new(scorer),
            demonstrations: None,
            described: Value::Null,
            folder: None,
            extras: Arc::new(crate::external::NoExtras),
        }
    }
}

/// A benchmark with the settings of one experiment.
pub trait Dataset {
    /// Its generated world of this name, if it has one.
    fn world(&self, name: &str) -> Option<Arc<dyn World>> {
        let _ = name;
        None
    }

    /// Reads a file of tasks.
    ///
    /// # Errors
    /// A file that cannot be read as a whole; bad rows are in the result.
    fn read(&self, path: &Path) -> Result<LoadedTasks>;

    /// Assembles the components for the given tasks.
    ///
    /// # Errors
    /// Invalid settings, a corpus that cannot be searched, no task that can be demonstrated.
    fn assemble(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Assembled>;

    /// Statistics of tasks that were read by this dataset or are from its world.
    ///
    /// # Errors
    /// Databases or corpora of the tasks that cannot be read.
    fn describe(&self, name: &str, tasks: &[Task]) -> Result<Description> {
        Ok(Description::usual(name, tasks))
    }
}

/// The folder of `tables.json` and of the databases that a file of questions refers to:
/// `databases` if given, else the questions' own folder.
pub fn databases_of(questions: &Path, databases: Option<&Path>) -> PathBuf {
    let parent = questions.parent().filter(|parent| !parent.as_os_str().is_empty());
    databases.or(parent).unwrap_or(Path::new(".")).to_owned()
}
