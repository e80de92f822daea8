//! `leyden run`: runs an experiment file to a finished run folder.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use leyden_suite::Registry;
use leyden_train::{Experiment, Finish};

use crate::live::At;
use crate::start;

/// Arguments of `leyden run`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Experiment file (TOML)
    file: PathBuf,
    /// Override a key: --set train.steps=40
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Root of the seed tree; each seed gets its own run folder
    #[arg(long)]
    seed: Option<u64>,
    /// Folder in which run folders are created
    #[arg(long, default_value = "runs")]
    runs: PathBuf,
    /// Run folder, instead of one named after the experiment
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Serve a live page of the run: on a local port, or on an address whose key is set in
    /// LEYDEN_LIVE_KEY
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "")]
    live: Option<At>,
    /// Print the resolved experiment and stop
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    run_with(arguments, &[], "", registry)
}

/// Runs an experiment with further overrides and a suffix to its name. Overrides of the command
/// line take precedence.
pub fn run_with(
    arguments: &Arguments,
    further: &[String],
    suffix: &str,
    registry: &Registry,
) -> Result<ExitCode> {
    let mut overrides = further.to_vec();
    overrides.extend_from_slice(&arguments.overrides);
    if let Some(seed) = arguments.seed {
        overrides.push(format!("seed={seed}"));
    }
    let mut experiment = Experiment::read(&arguments.file, &overrides, registry)?;
    experiment.name.push_str(suffix);
    if arguments.dry_run {
        print!("{}", experiment.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    let folder = arguments.folder.clone().unwrap_or_else(|| {
        let name = match arguments.seed {
            Some(seed) => format!("{}-seed{seed}", experiment.name),
            None => experiment.name.clone(),
        };
        arguments.runs.join(name)
    });
    start::set_threads(experiment.model.threads)?;
    match start::run_watched(registry, &experiment, &folder, arguments.live)? {
        Finish::Done => println!("finished: {}", folder.display()),
        Finish::AlreadyDone => println!("this run is finished already: {}", folder.display()),
    }
    Ok(ExitCode::SUCCESS)
}
