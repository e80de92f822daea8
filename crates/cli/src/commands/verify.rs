//! `leyden verify`: recompute golden files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use leyden_core::GoldenReport;

/// What is recomputed.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Logits, log-probabilities, greedy text, gradients, optimiser steps of a small Llama
    Llama {
        /// Folder with config.json, model.safetensors, fixtures.json, fixtures.safetensors
        dir: PathBuf,
    },
    /// Renderings of chat templates
    Chat {
        /// JSON list of renderings
        file: PathBuf,
        /// Folder with the templates
        #[arg(long)]
        templates: PathBuf,
    },
    /// Advantages, losses, KL and aggregation
    Rl {
        /// JSON file of cases
        file: PathBuf,
    },
    /// Scorers and tools
    Scores {
        kind: Kind,
        /// JSONL file of cases
        file: PathBuf,
        /// Spider folder, or its folder of databases
        #[arg(long, required_if_eq("kind", "spider"))]
        db: Option<PathBuf>,
    },
}

/// A scorer or tool with golden cases.
#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    Calcx,
    Calculator,
    Spider,
    Musique,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let report: GoldenReport = match arguments {
        Arguments::Llama { dir } => leyden_lm::golden::check_llama(dir)?,
        Arguments::Chat { file, templates } => leyden_text::check_renderings(file, templates)?,
        Arguments::Rl { file } => leyden_rl::golden::check(file)?,
        Arguments::Scores { kind, file, db } => match kind {
            Kind::Calcx => leyden_calcx::golden::check_calcx(file)?,
            Kind::Calculator => leyden_calcx::golden::check_calculator(file)?,
            Kind::Spider => {
                let db = db.as_ref().context("spider cases need --db")?;
                leyden_spider::golden::check(file, db)?
            }
            Kind::Musique => leyden_musique::golden::check(file)?,
        },
    };
    print!("{report}");
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
