//! Scores files of predictions: from this program's evaluations, or from other programs that
//! record question ids.
//!
//! The datasets' own crates read their official formats. This module reads lines of `id` and
//! `answer`, matches them to questions, and scores them as in training: rewards recorded by an
//! evaluation must be reproduced.

pub mod answers;
pub mod rewards;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use leyden_core::Scorer;
use serde::Serialize;
use serde_json::{Value, json};

use crate::benchmark::LoadedTasks;
use crate::registry::Registry;
use crate::settings::BenchmarkSettings;
use crate::sources::{self, Source};
use crate::table::counted;
use answers::Answer;
use rewards::Rewards;

/// References and predictions, and how they are matched.
pub struct Files {
    /// References, in the dataset's own format, with a range of rows if predictions have question
    /// ids.
    pub gold: String,
    /// Predictions, in the official format or as lines of `id` and `answer`.
    pub pred: PathBuf,
    /// The evaluation mode to score, for a file with both.
    pub mode: Option<String>,
    /// Skips questions without a prediction.
    pub partial: bool,
    /// Folder of the databases, for datasets with databases.
    pub databases: Option<PathBuf>,
    /// The reward to compute, for datasets with several.
    pub reward: Option<String>,
}

impl Files {
    /// Questions of `agent`'s dataset and their answers, matched by id.
    ///
    /// # Errors
    /// Files that cannot be read, answers that do not match the questions.
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

    /// Rejects options that require predictions with question ids; predictions without ids are
    /// matched by order.
    ///
    /// # Errors
    /// `mode` or `partial` is set.
    pub fn in_order(&self) -> Result<()> {
        let option = if self.mode.is_some() { "--mode" } else { "--partial" };
        if self.mode.is_some() || self.partial {
            bail!("{option}: the lines of {} have no question ids", self.pred.display());
        }
        Ok(())
    }

    /// Rejects a reward name, for datasets with a single reward.
    ///
    /// # Errors
    /// `reward` is set.
    pub fn default_reward_only(&self) -> Result<()> {
        match &self.reward {
            None => Ok(()),
            Some(name) => {
                bail!("--reward {name}: this dataset has only one reward; omit the option")
            }
        }
    }
}

/// The results of an evaluator.
pub struct Scored {
    /// Human-readable tables.
    pub text: String,
    /// The same as JSON.
    pub figures: Value,
}

impl Scored {
    /// A dataset's own table without rewards.
    ///
    /// # Errors
    /// Figures that cannot be serialised.
    pub fn of(text: &str, figures: &impl Serialize) -> Result<Self> {
        Ok(Self { text: text.to_owned(), figures: serde_json::to_value(figures)? })
    }

    /// A dataset's own table followed by the rewards of the answers.
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
    /// The name as given by the user.
    pub name: String,
    pub read: LoadedTasks,
    /// Number of questions removed because they have no answer.
    pub left_out: usize,
}

impl Gold {
    /// Reads the questions in `name` like an evaluation of `agent`, with the databases in
    /// `databases`.
    ///
    /// # Errors
    /// A world, a file that cannot be read or has no valid rows.
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
        let mut settings = BenchmarkSettings::defaults(registry, agent)?;
        if let Some(databases) = databases {
            settings.set("data.databases", databases.display().to_string())?;
        }
        let read = registry.prepare(settings)?.read(&path)?;
        sources::report(&read, &path);
        let read = sources::cut(read, rows, name)?;
        if read.tasks.is_empty() {
            bail!("{name}: the file has no valid rows");
        }
        Ok(Self { name: name.to_owned(), read, left_out: 0 })
    }

    /// Rejects a file with bad rows, because predictions without ids are matched by order.
    pub fn without_flaw(&self) -> Result<()> {
        match self.read.rejected.first() {
            None => Ok(()),
            Some(first) => bail!(
                "{}: {} cannot be used ({first}), and predictions without ids are matched to rows by \
                 order",
                self.name,
                counted(self.read.rejected.len(), "row")
            ),
        }
    }
}
