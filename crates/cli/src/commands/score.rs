//! `leyden score`: the official evaluators' tables for files of predictions.
//!
//! Predictions come in the official format of the dataset, or as lines of `id` and `answer`,
//! which is what `leyden eval` writes.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use leyden_suite::Registry;
use leyden_suite::evaluation::Mode;
use leyden_suite::predictions::Files;

use super::write_json;

/// Arguments of `leyden score`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The dataset whose evaluator speaks
    dataset: String,
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
    /// Folder of the databases that the questions are about
    #[arg(long, value_name = "FOLDER")]
    db: Option<PathBuf>,
    /// The reward that answers are worth, of a dataset with several
    #[arg(long)]
    reward: Option<String>,
    /// Also write the figures as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    let files = Files {
        gold: arguments.gold.clone(),
        pred: arguments.pred.clone(),
        mode: arguments.mode.map(|mode| mode.name().to_owned()),
        partial: arguments.partial,
        databases: arguments.db.clone(),
        reward: arguments.reward.clone(),
    };
    let scored = registry.published(&arguments.dataset)?.score(&files, registry)?;
    print!("{}", scored.text);
    if let Some(path) = &arguments.json {
        write_json(path, &scored.figures)?;
    }
    Ok(ExitCode::SUCCESS)
}
