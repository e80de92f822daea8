//! `leyden report`: page, curves and tables from run folders.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// Arguments of `leyden report`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run folders; several seeds of one experiment are drawn together
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for the report, by default `report` in the first run folder
    #[arg(long)]
    out: Option<PathBuf>,
}

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
    print!("{}", written.table);
    println!("report: {}", out.join("index.html").display());
    Ok(ExitCode::SUCCESS)
}
