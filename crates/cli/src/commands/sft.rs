//! `leyden sft`: supervised fine-tuning with an experiment's model, agent and data.
//!
//! The supervised baseline to reinforcement learning: the same experiment file, packing and
//! optimiser, trained on the demonstrations of its dataset (worked solutions, gold queries) or
//! on the successful rollouts of a run.

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
    /// Train on the successful training rollouts of this run folder instead of demonstrations
    #[arg(long, value_name = "RUN")]
    from: Option<PathBuf>,
    /// Minimum reward of a rollout to train on
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
