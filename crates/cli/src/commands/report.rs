//! `leyden report`: page, curves and tables from run folders, a sweep, or their recordings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use leyden_report::recorded::{is_recorded, is_sweep, load_all, record_runs, record_sweep};
use leyden_report::roofline::Roofline;
use leyden_report::sweep::{load_sweep, write_sweep};
use leyden_report::{Options, Written};

/// Arguments of `leyden report`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run folders (seeds of one experiment are plotted together), one sweep folder, or a recording
    /// of them: a recorded folder represents all its runs
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for the report; by default `report` in the first folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Instead of the page, write files to commit: table, pictures of the README, configuration,
    /// provenance, and an archive from which `leyden report` renders the rest; a single recorded
    /// folder is recorded again in place
    #[arg(long)]
    record: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let first = &arguments.runs[0];
    let here = arguments.record && arguments.runs.len() == 1 && is_recording(first);
    let usual = || if here { first.clone() } else { first.join("report") };
    let out = arguments.out.clone().unwrap_or_else(usual);
    let written = match arguments.runs.as_slice() {
        [folder] if Roofline::is_recorded(folder) => {
            if arguments.record {
                bail!("{}: `leyden kernels --record` writes it", folder.display());
            }
            return of_kernels(folder, &out);
        }
        [sweep] if is_sweep(sweep) && arguments.record => record_sweep(sweep, &out)?,
        [sweep] if is_sweep(sweep) => write_sweep(&load_sweep(sweep)?, &out, &Options::default())?,
        runs => of_runs(runs, &out, arguments.record)?,
    };
    for note in &written.notes {
        eprintln!("note: {note}");
    }
    print!("{}", written.table);
    if arguments.record {
        let bytes: u64 =
            written.files.iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum();
        println!(
            "recorded: {}, {} files, {} KiB; the page: leyden report {}",
            out.display(),
            written.files.len(),
            bytes.div_ceil(1024),
            out.display()
        );
    } else {
        println!("report: {}", out.join("index.html").display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a folder is a recording; the earlier format has whole run folders beside its table.
fn is_recording(folder: &Path) -> bool {
    let has = |name: &&str| folder.join(name).exists();
    let earlier =
        ["table.md", "sweep.md"].iter().any(has) && !["config.toml", "status"].iter().any(has);
    is_recorded(folder) || earlier
}

fn of_runs(folders: &[PathBuf], out: &Path, keep: bool) -> Result<Written> {
    for folder in folders {
        if is_sweep(folder) {
            bail!("{}: this is a sweep folder, which must be the only argument", folder.display());
        }
    }
    if keep {
        return Ok(record_runs(folders, out)?);
    }
    Ok(leyden_report::write(&load_all(folders)?, out, &Options::default())?)
}

fn of_kernels(folder: &Path, out: &Path) -> Result<ExitCode> {
    let page = Roofline::read(folder)?;
    page.write(out)?;
    println!("report: {}", out.join("index.html").display());
    Ok(ExitCode::SUCCESS)
}
