//! The `leyden` command: reads arguments, prints sentences, sets the exit code.
//!
//! Exit codes: 0 done, 1 could not go on (with one sentence why), 2 wrong arguments.

mod commands;
mod dataset;
mod dataset_info;
mod encoder_folder;
mod evaluation;
mod fetch;
mod live;
mod machine;
mod model_info;
mod model_source;
mod plan;
mod retrieval;
mod scoring;
mod sources;
mod summary;
mod table;
mod tiny;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A laboratory for reinforcement learning of language-model agents.
#[derive(Parser)]
#[command(name = "leyden", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment; the same command continues an interrupted one
    Run(commands::run::Arguments),
    /// Run an experiment with imitation instead of rewards
    Sft(commands::sft::Arguments),
    /// Run an experiment in several variants under several seeds
    Sweep(commands::sweep::Arguments),
    /// Evaluate a model with an agent on held-out tasks
    Eval(Box<commands::eval::Arguments>),
    /// Put a model behind an OpenAI URL
    Serve(Box<commands::serve::Arguments>),
    /// List, read and export rollouts of a run or of a server
    #[command(subcommand)]
    Rollouts(commands::rollouts::Arguments),
    /// Draw curves, tables and a page from run folders, or compare the variants of a sweep
    Report(commands::report::Arguments),
    /// Compare two runs on the same test items
    Compare(commands::compare::Arguments),
    /// Make, import or describe models
    #[command(subcommand)]
    Model(commands::model::Arguments),
    /// Fetch, make or describe datasets
    #[command(subcommand)]
    Data(commands::data::Arguments),
    /// Score a file of predictions as the dataset's official evaluator does
    #[command(subcommand)]
    Score(commands::score::Arguments),
    /// Time every kernel of training and generation beside what this machine can do
    Kernels(commands::kernels::Arguments),
    /// Recompute golden files and say how far off this machine is
    #[command(subcommand)]
    Verify(commands::verify::Arguments),
    /// Say what this machine offers and what an experiment would need
    Doctor(commands::doctor::Arguments),
}

fn main() -> ExitCode {
    leyden_lm::process::settle_process();
    end_with_the_reader();
    let result = match Cli::parse().command {
        Command::Run(arguments) => commands::run::run(&arguments),
        Command::Sft(arguments) => commands::sft::run(&arguments),
        Command::Sweep(arguments) => commands::sweep::run(&arguments),
        Command::Eval(arguments) => commands::eval::run(&arguments),
        Command::Serve(arguments) => commands::serve::run(&arguments),
        Command::Rollouts(arguments) => commands::rollouts::run(&arguments),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Compare(arguments) => commands::compare::run(&arguments),
        Command::Model(arguments) => commands::model::run(&arguments),
        Command::Data(arguments) => commands::data::run(&arguments),
        Command::Score(arguments) => commands::score::run(&arguments),
        Command::Kernels(arguments) => commands::kernels::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Doctor(arguments) => commands::doctor::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("leyden: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes on one line. Many errors tell their cause themselves; it is not
/// told twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Ends quietly when whoever reads our output has gone (`leyden data info … | head`), as
/// other commands do; by default a Rust program panics.
fn end_with_the_reader() {
    // SAFETY: the default action is a valid disposition, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
