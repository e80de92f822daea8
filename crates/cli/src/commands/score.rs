//! `leyden score`: the official evaluators' tables for files of predictions.
//!
//! Predictions come in the official format of the dataset, or as lines of `id` and `answer`,
//! which is what `leyden eval` writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_calcx::CalcxScorer;
use leyden_core::{Scorer, Task};
use leyden_musique::{MusiqueScorer, Reward};
use leyden_spider::scorer::DATABASE_FIELD;
use leyden_spider::{Limits, Spider, SpiderScorer, table};
use serde::Serialize;
use serde_json::{Value, json};

use super::write_json;
use crate::evaluation::Mode;
use crate::scoring::answers::{self, Answer};
use crate::scoring::rewards::Rewards;
use crate::scoring::{Gold, calcx, musique};
use crate::table::counted;

/// The dataset whose evaluator speaks.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Execution match, exact match and partial scores by hardness
    Spider {
        #[command(flatten)]
        files: Files,
        /// Spider folder, or its folder of databases
        #[arg(long)]
        db: PathBuf,
    },
    /// Answer and support: exact match and F1
    Musique {
        #[command(flatten)]
        files: Files,
        /// The reward that answers are worth, f1 or f1_format
        #[arg(long, default_value = "f1")]
        reward: String,
    },
    /// Accuracy by source, and why answers are not right
    Calcx {
        #[command(flatten)]
        files: Files,
    },
}

#[derive(clap::Args)]
pub struct Files {
    /// References, in the dataset's own format; with rows if predictions name their questions:
    /// FILE:0..100
    #[arg(long)]
    gold: String,
    /// Predictions, in the official format or as lines of id and answer, as leyden eval writes
    #[arg(long)]
    pred: PathBuf,
    /// Of a file that holds both modes of an evaluation: which
    #[arg(long)]
    mode: Option<Mode>,
    /// Leave out questions that have no line among the predictions, as those of an evaluation
    /// with --limit
    #[arg(long)]
    partial: bool,
    /// Also write the figures as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments {
        Arguments::Spider { files, db } => spider(files, db)?,
        Arguments::Musique { files, reward } => musique(files, reward)?,
        Arguments::Calcx { files } => calcx(files)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn spider(files: &Files, db: &Path) -> Result<()> {
    let spider = Arc::new(Spider::open(db, Limits::default())?);
    if !answers::are_named(&files.pred)? {
        files.in_order()?;
        let gold = table::read_gold(&files.gold)?;
        if gold.is_empty() {
            bail!("{}: there is no reference in it", files.gold);
        }
        let predictions = table::read_predictions(&files.pred, gold.len())?;
        let evaluation = table::evaluate(&spider, &gold, &predictions);
        print!("{}", evaluation.to_text());
        return files.write(&evaluation, None);
    }
    let (gold, answers) = files.named("sql", Some(db))?;
    let tasks = &gold.read.tasks;
    let references: Vec<table::Gold> = tasks.iter().map(reference).collect();
    let text = |answer: &Answer| answer.text.clone().unwrap_or_default();
    let predictions: Vec<String> = answers.iter().map(text).collect();
    let evaluation = table::evaluate(&spider, &references, &predictions);
    print!("{}", evaluation.to_text());
    files.rewards(&evaluation, &SpiderScorer::new(spider), tasks, &answers)
}

fn reference(task: &Task) -> table::Gold {
    let database = task.fields.get(DATABASE_FIELD).and_then(Value::as_str).unwrap_or_default();
    table::Gold {
        query: task.gold.clone(),
        database: database.to_owned(),
        id: Some(task.id.clone()),
    }
}

fn musique(files: &Files, reward: &str) -> Result<()> {
    let reward: Reward =
        reward.parse().map_err(|error: String| anyhow::anyhow!("--reward: {error}"))?;
    if !answers::are_named(&files.pred)? {
        files.in_order()?;
        let evaluation = leyden_musique::evaluate(&files.gold, &files.pred)?;
        print!("{evaluation}");
        return files.write(&evaluation, None);
    }
    let (gold, answers) = files.named("rag", None)?;
    let evaluation = musique::Evaluation::of(&gold.read.tasks, &answers)?;
    print!("{evaluation}");
    files.rewards(&evaluation, &MusiqueScorer { reward }, &gold.read.tasks, &answers)
}

fn calcx(files: &Files) -> Result<()> {
    let (gold, answers) = if answers::are_named(&files.pred)? {
        files.named("calc", None)?
    } else {
        files.in_order()?;
        let gold = Gold::read("calc", &files.gold, None)?;
        let answers = answers::in_order(&files.pred, &gold)?;
        (gold, answers)
    };
    let evaluation = calcx::Evaluation::of(&gold.read.tasks, &answers);
    print!("{evaluation}");
    files.rewards(&evaluation, &CalcxScorer, &gold.read.tasks, &answers)
}

impl Files {
    /// Questions of `agent`'s dataset and their answers, found by id.
    fn named(&self, agent: &str, db: Option<&Path>) -> Result<(Gold, Vec<Answer>)> {
        let mut gold = Gold::read(agent, &self.gold, db)?;
        let mode = self.mode.map(Mode::name);
        let answers = answers::named(&self.pred, mode, self.partial, &mut gold)?;
        if gold.left_out > 0 {
            let questions = counted(gold.left_out, "question");
            println!("left out: {questions} of {} without an answer\n", gold.name);
        }
        Ok((gold, answers))
    }

    /// Refuses what only predictions that name their questions can have: these belong to
    /// theirs by their order.
    fn in_order(&self) -> Result<()> {
        let option = if self.mode.is_some() { "--mode" } else { "--partial" };
        if self.mode.is_some() || self.partial {
            bail!("{option}: the lines of {} do not name their questions", self.pred.display());
        }
        Ok(())
    }

    /// Tells the rewards of answers below the dataset's own table.
    fn rewards(
        &self,
        evaluation: &impl Serialize,
        scorer: &dyn Scorer,
        tasks: &[Task],
        answers: &[Answer],
    ) -> Result<()> {
        let rewards = Rewards::of(scorer, tasks, answers);
        print!("\n{rewards}");
        self.write(evaluation, Some(&rewards))
    }

    fn write(&self, evaluation: &impl Serialize, rewards: Option<&Rewards>) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let mut figures = serde_json::to_value(evaluation)?;
        if let Some(rewards) = rewards {
            figures["reward"] = json!(rewards);
        }
        write_json(path, &figures)
    }
}
