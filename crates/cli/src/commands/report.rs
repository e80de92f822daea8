//! `leyden report`: page, curves and tables from run folders.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// Arguments of `leyden report`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run folders; several seeds of one experiment are drawn together
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for the report, by default `report` in the first run folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also keep each run's configuration, provenance and metrics beside the report
    #[arg(long)]
    record: bool,
}

/// What a recorded run consists of; rollouts and checkpoints are too large to keep.
const RECORDED: [&str; 6] = [
    "config.toml",
    "provenance.json",
    "metrics.jsonl",
    "timings.jsonl",
    // Of evaluations.
    "predictions.jsonl",
    "summary.txt",
];

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut runs = Vec::new();
    for folder in &arguments.runs {
        if !folder.is_dir() {
            bail!("{}: there is no such run folder", folder.display());
        }
        runs.push(leyden_report::load(folder)?);
    }
    let out = arguments.out.clone().unwrap_or_else(|| arguments.runs[0].join("report"));
    let written = leyden_report::write(&runs, &out, &leyden_report::Options::default())?;
    if arguments.record {
        for folder in &arguments.runs {
            record(folder, &out)?;
        }
    }
    for note in &written.notes {
        eprintln!("note: {note}");
    }
    print!("{}", written.table);
    println!("report: {}", out.join("index.html").display());
    Ok(ExitCode::SUCCESS)
}

/// Copies what is kept of a run into a folder of its name below `out`.
fn record(run: &Path, out: &Path) -> Result<()> {
    let name = run.file_name().with_context(|| format!("{} has no name", run.display()))?;
    let target = out.join(name);
    std::fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    for file in RECORDED {
        let source = run.join(file);
        if !source.exists() {
            continue;
        }
        std::fs::copy(&source, target.join(file)).with_context(|| source.display().to_string())?;
    }
    Ok(())
}
