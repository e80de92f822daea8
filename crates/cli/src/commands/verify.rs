//! `leyden verify`: recomputes golden files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use leyden_core::GoldenReport;
use leyden_suite::{Benchmark, Registry};

/// The kinds of golden files.
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
        #[arg(index = 1)]
        kind: String,
        /// JSONL file of cases
        #[arg(index = 2)]
        file: PathBuf,
        /// Folder of the databases that the cases refer to
        #[arg(long)]
        db: Option<PathBuf>,
    },
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    let report: GoldenReport = match arguments {
        Arguments::Llama { dir } => leyden_lm::golden::check_llama(dir)?,
        Arguments::Chat { file, templates } => leyden_text::check_renderings(file, templates)?,
        Arguments::Rl { file } => leyden_rl::golden::check(file)?,
        Arguments::Scores { kind, file, db } => {
            let mut all = registry.iter().flat_map(Benchmark::golden);
            let golden =
                all.find(|golden| golden.name == kind).context("unknown kind of golden file")?;
            (golden.check)(file, db.as_deref())?
        }
    };
    print!("{report}");
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
