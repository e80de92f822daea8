//! `leyden sft`: an experiment's model, agent and data with imitation instead of rewards.
//!
//! The other side of the question "reinforcement or supervised?": the same file, packing and
//! optimiser, and as lessons either the demonstrations of its dataset (worked solutions, gold
//! queries) or the successful rollouts of a run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use leyden_suite::Registry;

use super::run;

/// Arguments of `leyden sft`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    run: run::Arguments,
    /// A run folder whose successful training rollouts are imitated, instead of demonstrations
    #[arg(long, value_name = "RUN")]
    from: Option<PathBuf>,
    /// Least reward of a rollout that is imitated
    #[arg(long, value_name = "REWARD", requires = "from")]
    least: Option<f64>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    let mut overrides = vec!["train.objective=supervised".to_owned()];
    if let Some(run) = &arguments.from {
        overrides.push(format!("data.successes={:?}", run.display().to_string()));
    }
    if let Some(least) = arguments.least {
        overrides.push(format!("data.success_reward={least:?}"));
    }
    run::run_with(&arguments.run, &overrides, "-sft", registry)
}
