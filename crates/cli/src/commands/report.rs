//! `leyden report`: page, curves and tables from run folders or from a sweep.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use leyden_report::sweep::{load_sweep, write_sweep};
use leyden_report::{Options, Written};
use leyden_sweep::{CELLS, SweepFolder};

/// Arguments of `leyden report`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run folders (several seeds of one experiment are drawn together), or one sweep folder
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
    let out = arguments.out.clone().unwrap_or_else(|| arguments.runs[0].join("report"));
    let written = match arguments.runs.as_slice() {
        [sweep] if SweepFolder::is_one(sweep) => of_sweep(sweep, &out, arguments.record)?,
        runs => of_runs(runs, &out, arguments.record)?,
    };
    for note in &written.notes {
        eprintln!("note: {note}");
    }
    print!("{}", written.table);
    println!("report: {}", out.join("index.html").display());
    Ok(ExitCode::SUCCESS)
}

fn of_runs(folders: &[PathBuf], out: &Path, keep: bool) -> Result<Written> {
    let mut runs = Vec::new();
    for folder in folders {
        if !folder.is_dir() {
            bail!("{}: there is no such run folder", folder.display());
        }
        if SweepFolder::is_one(folder) {
            bail!("{}: this is a sweep folder: give it alone", folder.display());
        }
        runs.push(leyden_report::load(folder)?);
    }
    let written = leyden_report::write(&runs, out, &Options::default())?;
    if keep {
        for folder in folders {
            record(folder, out)?;
        }
    }
    Ok(written)
}

fn of_sweep(root: &Path, out: &Path, keep: bool) -> Result<Written> {
    let sweep = load_sweep(root)?;
    let written = write_sweep(&sweep, out, &Options::default())?;
    if keep {
        for file in ["sweep.toml", "base.toml", CELLS] {
            copy(&root.join(file), &out.join(file))?;
        }
        let cells = out.join("cells");
        for cell in sweep.variants.iter().flat_map(|variant| &variant.cells) {
            let Some(run) = &cell.run else { continue };
            record(&run.folder, &cells)?;
            // What is recorded is a sweep folder again, whose report can be made anew.
            if run.folder.join("finished").is_file() {
                copy(&run.folder.join("finished"), &cells.join(&cell.cell.id).join("finished"))?;
            }
        }
    }
    Ok(written)
}

/// Copies what is kept of a run into a folder of its name below `out`.
fn record(run: &Path, out: &Path) -> Result<()> {
    let name = run.file_name().with_context(|| format!("{} has no name", run.display()))?;
    let target = out.join(name);
    std::fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    for file in RECORDED {
        let source = run.join(file);
        if source.exists() {
            copy(&source, &target.join(file))?;
        }
    }
    Ok(())
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    std::fs::copy(source, target).with_context(|| source.display().to_string())?;
    Ok(())
}
