//! `leyden score`: the official evaluators' tables for files of predictions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use leyden_spider::{Limits, Spider, table};
use serde::Serialize;

use super::write_json;

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
    },
}

#[derive(clap::Args)]
pub struct Files {
    /// References, in the dataset's own format
    #[arg(long)]
    gold: PathBuf,
    /// Predictions, in the official format
    #[arg(long)]
    pred: PathBuf,
    /// Also write the figures as JSON
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments {
        Arguments::Spider { files, db } => {
            let spider = Spider::open(db, Limits::default())?;
            let gold = table::read_gold(&files.gold)?;
            let predictions = table::read_predictions(&files.pred, gold.len())?;
            let evaluation = table::evaluate(&spider, &gold, &predictions);
            print!("{}", evaluation.to_text());
            files.write(&evaluation)?;
        }
        Arguments::Musique { files } => {
            let evaluation = leyden_musique::evaluate(&files.gold, &files.pred)?;
            print!("{evaluation}");
            files.write(&evaluation)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Files {
    /// Writes the figures as JSON where that is asked for.
    fn write(&self, evaluation: &impl Serialize) -> Result<()> {
        self.json.as_deref().map_or(Ok(()), |path| write_json(path, evaluation))
    }
}
