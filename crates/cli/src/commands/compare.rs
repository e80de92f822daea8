//! `leyden compare`: two runs on the same test items.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use leyden_report::{compare, load};

/// Arguments of `leyden compare`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The run that is compared with: a folder of `leyden run` or `leyden eval`
    first: PathBuf,
    /// The run that is judged
    second: PathBuf,
    /// Which evaluation; by default the first that both have
    #[arg(long)]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Sampled,
    Greedy,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mode = arguments.mode.map(|mode| match mode {
        Mode::Sampled => "sampled",
        Mode::Greedy => "greedy",
    });
    let comparison = compare::compare(&load(&arguments.first)?, &load(&arguments.second)?, mode)?;
    print!("{}", comparison.markdown());
    Ok(ExitCode::SUCCESS)
}
