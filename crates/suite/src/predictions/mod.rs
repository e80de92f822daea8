//! Scores of predictions that somebody wrote down: by this program's evaluations, or by any
//! other that names each answer's question.
//!
//! The official formats of published datasets are read by their own packages. What is here
//! reads lines of `id` and `answer`, finds the question of each, and judges the answers as
//! training would: what an evaluation recorded as rewards must come out again.

pub mod answers;
pub mod rewards;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use leyden_core::Scorer;
use serde::Serialize;
use serde_json::{Value, json};

use crate::benchmark::LoadedTasks;
use crate::model::tiny;
use crate::registry::Registry;
use crate::sources::{self, Source};
use crate::table::counted;
use answers::Answer;
use rewards::Rewards;

/// References and predictions, and how they belong together.
pub struct Files {
    /// References, in the dataset's own format, with rows if predictions name their questions.
    pub gold: String,
    /// Predictions, in the official format or as lines of `id` and `answer`.
    pub pred: PathBuf,
    /// Of a file that holds both modes of an evaluation: which.
    pub mode: Option<String>,
    /// Leaves out questions that have no line among the predictions.
    pub partial: bool,
    /// Where the databases are, for datasets that have some.
    pub databases: Option<PathBuf>,
    /// The reward that answers are worth, for datasets with several.
    pub reward: Option<String>,
}

impl Files {
    /// Questions of `agent`'s dataset and their answers, found by id.
    ///
    /// # Errors
    /// Files that cannot be read, answers that do not fit the questions.
    pub fn named(
        &self,
        registry: &Registry,
        agent: &str,
        databases: Option<&Path>,
    ) -> Result<(Gold, Vec<Answer>)> {
        let mut gold = Gold::read(registry, agent, &self.gold, databases)?;
        let mode = self.mode.as_deref();
        let answers = answers::named(&self.pred, mode, self.partial, &mut gold)?;
        Ok((gold, answers))
    }

    /// Refuses what only predictions that name their questions can have: these belong to
    /// theirs by their order.
    ///
    /// # Errors
    /// Where a mode or a part of the questions is asked for.
    pub fn in_order(&self) -> Result<()> {
        let option = if self.mode.is_some() { "--mode" } else { "--partial" };
        if self.mode.is_some() || self.partial {
            bail!("{option}: the lines of {} do not name their questions", self.pred.display());
        }
        Ok(())
    }

    /// Refuses a reward by name, for datasets with one.
    ///
    /// # Errors
    /// Where one is asked for.
    pub fn default_reward_only(&self) -> Result<()> {
        match &self.reward {
            None => Ok(()),
            Some(name) => bail!("--reward {name}: this dataset has one reward; leave it away"),
        }
    }
}

/// The table of an evaluator.
pub struct Scored {
    /// As people read it.
    pub text: String,
    /// As programs do.
    pub figures: Value,
}

impl Scored {
    /// A dataset's own table alone.
    ///
    /// # Errors
    /// Figures that are no JSON.
    pub fn of(text: &str, figures: &impl Serialize) -> Result<Self> {
        Ok(Self { text: text.to_owned(), figures: serde_json::to_value(figures)? })
    }

    /// The rewards of answers below a dataset's own table.
    ///
    /// # Errors
    /// As [`Scored::of`].
    pub fn with_rewards(
        text: &str,
        figures: &impl Serialize,
        scorer: &dyn Scorer,
        gold: &Gold,
        answers: &[Answer],
    ) -> Result<Self> {
        let rewards = Rewards::of(scorer, &gold.read.tasks, answers);
        let left_out = match gold.left_out {
            0 => String::new(),
            count => {
                let questions = counted(count, "question");
                format!("left out: {questions} of {} without an answer\n\n", gold.name)
            }
        };
        let mut scored = Self::of(&format!("{left_out}{text}\n{rewards}"), figures)?;
        scored.figures["reward"] = json!(rewards);
        Ok(scored)
    }
}

/// Questions to score: a file of a dataset, or some of its rows.
pub struct Gold {
    /// As it was asked for.
    pub name: String,
    pub read: LoadedTasks,
    /// Questions that were taken out because nobody answered them.
    pub left_out: usize,
}

impl Gold {
    /// Reads the questions that `name` stands for as an evaluation of `agent` reads them, with
    /// the databases in `databases`.
    ///
    /// # Errors
    /// A world, a file that cannot be read or has no good row.
    pub fn read(
        registry: &Registry,
        agent: &str,
        name: &str,
        databases: Option<&Path>,
    ) -> Result<Self> {
        let (path, rows) = match Source::parse(name, registry)? {
            Source::File { path, rows } => (path, rows),
            Source::World(world) => bail!(
                "--gold {world}: references come from a file; `leyden data make {world}` writes one"
            ),
        };
        sources::check_exists(&path, registry)?;
        let mut settings = tiny::settings(registry, agent, 0)?;
        if let Some(databases) = databases {
            settings.set("data.databases", databases.display().to_string())?;
        }
        let read = registry.prepare(settings)?.read(&path)?;
        sources::tell(&read, &path);
        let read = sources::cut(read, rows, name)?;
        if read.tasks.is_empty() {
            bail!("{name}: there is no good row in it");
        }
        Ok(Self { name: name.to_owned(), read, left_out: 0 })
    }

    /// Refuses a file with bad rows: predictions without ids belong to rows by their order.
    pub fn without_flaw(&self) -> Result<()> {
        match self.read.rejected.first() {
            None => Ok(()),
            Some(first) => bail!(
                "{}: {} cannot be used ({first}), and predictions without ids belong to rows by \
                 their order",
                self.name,
                counted(self.read.rejected.len(), "row")
            ),
        }
    }
}
