//! `leyden compare`: compares two runs on the same test items.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use leyden_report::{compare, load};
use leyden_suite::evaluation::Mode;

/// Arguments of `leyden compare`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The baseline: a folder of `leyden run` or `leyden eval`
    first: PathBuf,
    /// The run compared with the baseline
    second: PathBuf,
    /// Which evaluation; by default the first that both have
    #[arg(long)]
    mode: Option<Mode>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mode = arguments.mode.map(Mode::name);
    let comparison = compare::compare(&load(&arguments.first)?, &load(&arguments.second)?, mode)?;
    print!("{}", comparison.markdown());
    Ok(ExitCode::SUCCESS)
}
