//! What a benchmark is: an agent with its tasks, its scorer and everything else that only it
//! knows.
//!
//! A [`Benchmark`] is what a program is made with, once; a [`Dataset`] is a benchmark under the
//! settings of one experiment. Its tasks come from files or from the generated world of the
//! same kind; once they are read, they are assembled: the agent, the scorer and, where a model
//! is to imitate them, demonstrations, all over the same databases or corpus.

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

/// An agent with its tasks, its scorer and everything else that only it knows.
pub trait Benchmark: Send + Sync {
    /// The name of the agent in experiments: `calc`.
    fn name(&self) -> &'static str;

    /// The same in a word or two, for lists of names.
    fn what(&self) -> &'static str;

    /// Keys of an experiment file that only this benchmark has: in `[agent]`, in `[data]`, or in
    /// tables of its own. Several benchmarks may share a key, which they then declare alike.
    fn keys(&self) -> Vec<OwnKey> {
        Vec::new()
    }

    /// What an answer must be to earn its reward, for the reference of keys.
    fn reward(&self) -> &'static str {
        ""
    }

    /// Names of rewards besides `default` that only this benchmark has.
    fn rewards(&self) -> &'static [&'static str] {
        &[]
    }

    /// What its files of tasks are, for the reference of keys.
    fn files(&self) -> &'static str {
        ""
    }

    /// Most model calls of one rollout where nobody says how many.
    fn max_turns(&self) -> usize {
        4
    }

    /// Changes settings at their defaults to those that the tiny model was pretrained with.
    fn for_tiny(&self, settings: &mut BenchmarkSettings) {
        let _ = settings;
    }

    /// The benchmark under `settings`; `registry` are all benchmarks of the program.
    ///
    /// # Errors
    /// Settings that make no sense, by key.
    fn prepare(&self, settings: BenchmarkSettings, registry: &Registry)
    -> Result<Box<dyn Dataset>>;

    /// Its generated world, where it has one.
    fn world(&self) -> Option<GeneratedWorld> {
        None
    }

    /// The published dataset behind it, where there is one.
    fn published(&self) -> Option<Published> {
        None
    }

    /// Downloads the published dataset.
    ///
    /// # Errors
    /// The hub's and the file system's; a repository without tasks.
    fn fetch(&self, fetch: &Fetch<'_>) -> Result<Written> {
        bail!("{}: {} has no dataset to fetch", fetch.repository, self.name())
    }

    /// Whether a file is one of its dataset, by the names of fields that occur in it.
    fn recognises(&self, has: &dyn Fn(&str) -> bool) -> bool {
        let _ = has;
        false
    }

    /// Scores a file of predictions as the official evaluator of its dataset does.
    ///
    /// # Errors
    /// Files that cannot be read, predictions that do not fit the questions.
    fn score(&self, files: &Files, registry: &Registry) -> Result<Scored> {
        let _ = registry;
        bail!("{}: {} has no evaluator", files.gold, self.name())
    }

    /// Why a rollout did not earn its reward; `reward` is less than 1.
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
    /// Its repository on the hub, where nobody names another.
    pub repository: &'static str,
}

/// What is to be fetched, and where to.
pub struct Fetch<'a> {
    pub hub: &'a Hub,
    /// `owner/name`.
    pub repository: &'a str,
    pub out: &'a Path,
    /// Also what tasks do not need.
    pub all: bool,
}

/// A kind of golden file.
pub struct Golden {
    pub name: &'static str,
    /// Recomputes the cases of a file; some need a folder of databases.
    pub check: fn(&Path, Option<&Path>) -> Result<GoldenReport>,
}

/// A generated world by name.
#[derive(Clone, Copy)]
pub struct GeneratedWorld {
    /// Its name among the sources of tasks.
    pub name: &'static str,
    /// Makes it from its seed.
    pub make: fn(u64) -> Arc<dyn World>,
}

/// A file or folder of a world that was written: its name, how many entries it has, and what
/// one of them is called.
pub type Entries = (&'static str, usize, &'static str);

/// A generated world: an endless stream of training tasks, and test tasks apart from them.
pub trait World: Send + Sync {
    fn train(&self, index: u64) -> Task;

    fn test(&self, count: usize) -> Vec<Task>;

    /// Writes so many tasks as files in the format of the published dataset.
    ///
    /// # Errors
    /// The file system's own.
    fn write(&self, out: &Path, train: u64, test: usize) -> Result<Vec<Entries>>;

    /// What else is worth knowing, as a sentence.
    fn note(&self) -> Option<String> {
        None
    }
}

/// What a file gave: its tasks, and sentences on the rows that were left out.
#[derive(Default)]
pub struct LoadedTasks {
    pub tasks: Vec<Task>,
    pub rejected: Vec<String>,
    /// What else a reader should know, such as databases that cannot be used.
    pub notes: Vec<String>,
}

impl From<Loaded> for LoadedTasks {
    fn from(loaded: Loaded) -> Self {
        let rejected = loaded.rejected.iter().map(ToString::to_string).collect();
        Self { tasks: loaded.tasks, rejected, notes: Vec::new() }
    }
}

/// The rows of a file, by a dataset's readers: of its own format, and of Parquet.
///
/// # Errors
/// Where the file as a whole cannot be read; bad rows are in the result.
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

/// Where the training tasks come from.
#[derive(Clone, Copy)]
pub enum Train<'a> {
    World,
    Tasks(&'a [Task]),
}

/// A dataset with everything that works on it.
pub struct Assembled {
    pub agent: Arc<dyn Agent>,
    pub scorer: Arc<dyn Scorer>,
    /// Of the training tasks, if they were asked for.
    pub demonstrations: Option<Box<dyn DemonstrationSource>>,
    /// What else is in use (databases, corpus, index), for the provenance.
    pub described: Value,
    /// Files of a generated world, kept as long as it is worked on.
    pub folder: Option<tempfile::TempDir>,
    /// What agents outside of this process need besides the task.
    pub extras: Arc<dyn Extras>,
}

impl Assembled {
    /// An agent and a scorer that need nothing else.
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

/// A benchmark under the settings of one experiment.
pub trait Dataset {
    /// Its generated world and the world's name, where there is one.
    fn world(&self) -> Option<(&'static str, Arc<dyn World>)> {
        None
    }

    /// Reads a file of tasks.
    ///
    /// # Errors
    /// Where the file as a whole cannot be read; bad rows are in the result.
    fn read(&self, path: &Path) -> Result<LoadedTasks>;

    /// Puts together what works on the tasks that were read.
    ///
    /// # Errors
    /// BenchmarkSettings that make no sense, a corpus that cannot be searched, no task that can be
    /// demonstrated.
    fn assemble(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Assembled>;

    /// Tasks in figures; they were read by this dataset or are of its world.
    ///
    /// # Errors
    /// Where what the tasks are about cannot be read.
    fn describe(&self, name: &str, tasks: &[Task]) -> Result<Description> {
        Ok(Description::usual(name, tasks))
    }
}

/// The folder of `tables.json` and the databases that a file of questions is about: `databases`
/// if somebody said so, else where the questions are.
pub fn databases_of(questions: &Path, databases: Option<&Path>) -> PathBuf {
    let beside = questions.parent().filter(|parent| !parent.as_os_str().is_empty());
    databases.or(beside).unwrap_or(Path::new(".")).to_owned()
}
