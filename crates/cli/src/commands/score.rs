//! `leyden score`: scores files of predictions like the datasets' official evaluators.
//!
//! Predictions are in the official format of the dataset, or lines of `id` and `answer` as
//! written by `leyden eval`.

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
    /// The dataset whose evaluator is used
    dataset: String,
    /// References, in the dataset's own format; with a range of rows if predictions have question
    /// ids: FILE:0..100
    #[arg(long)]
    gold: String,
    /// Predictions, in the official format or as lines of id and answer, as leyden eval writes
    #[arg(long)]
    pred: PathBuf,
    /// The evaluation mode to score, for a file with both
    #[arg(long)]
    mode: Option<Mode>,
    /// Skip questions without a prediction, such as those of an evaluation with --limit
    #[arg(long)]
    partial: bool,
    /// Folder of the databases that the questions refer to
    #[arg(long, value_name = "FOLDER")]
    db: Option<PathBuf>,
    /// The reward to compute, for a dataset with several
    #[arg(long)]
    reward: Option<String>,
    /// Also write the results as JSON
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
