//! The `leyden` command: parses arguments, prints results, sets the exit code.
//!
//! It contains no benchmarks: [`main`] takes a registry of benchmarks, whose names, keys and
//! descriptions complete its arguments and help. So a benchmark in a separate crate has all
//! commands:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     leyden_cli::main(leyden_suite::registry())
//! }
//! ```
//!
//! Exit codes: 0 success, 1 error (with a one-line message), 2 invalid arguments.
//!
//! # Crates
//!
//! | crate | contents |
//! |---|---|
//! | [`leyden_core`] | core types: task, call, rollout, agent, scorer; the seed tree |
//! | [`leyden_rl`] | credit, advantage and loss on plain slices |
//! | [`leyden_stats`] | confidence intervals and tests that compare runs |
//! | [`leyden_text`] | tokenizers, chat templates, tool calls, grammars |
//! | [`leyden_lm`] | Llama on libtorch: formats, generation engine, policy, optimisers |
//! | [`leyden_train`] | the LightningRL loop; `examples/nano.rs` is a one-file version |
//! | [`leyden_suite`] | the benchmarks, and how to add your own |
//! | [`leyden_serve`] | the Lightning Server: protocols, store, gateway, live page |
//! | [`leyden_inference`] | the engine as the server's backend |
//! | [`leyden_report`] | curves, tables, pages, recorded folders |
//! | [`leyden_sweep`] | sweeps as cells that several workers share |
//! | [`leyden_roofline`] | kernels against the machine's limits |
//! | [`leyden_hub`] | files from the Hugging Face hub |
//!
//! Suggested reading order: [`leyden_core`], `crates/train/examples/nano.rs`, [`leyden_rl`],
//! `step.rs` of [`leyden_train`]. `ARCHITECTURE.md` follows a task through all of them.

mod commands;
mod live;
mod machine;
mod names;
mod start;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use leyden_suite::{Benchmark, Registry};

/// A laboratory for reinforcement learning of language-model agents.
#[derive(Parser)]
#[command(name = "leyden", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an experiment; the same command resumes an interrupted one
    Run(commands::run::Arguments),
    /// Run an experiment with supervised fine-tuning instead of rewards
    Sft(commands::sft::Arguments),
    /// Run an experiment in several variants with several seeds
    Sweep(commands::sweep::Arguments),
    /// Evaluate a model with an agent on held-out tasks
    Eval(Box<commands::eval::Arguments>),
    /// Serve a model through the OpenAI API
    Serve(Box<commands::serve::Arguments>),
    /// List, read and export rollouts of a run or of a server
    #[command(subcommand)]
    Rollouts(commands::rollouts::Arguments),
    /// Draw curves, tables and a page from run folders, or compare the variants of a sweep
    Report(commands::report::Arguments),
    /// Compare two runs on the same test items
    Compare(commands::compare::Arguments),
    /// Measure how well credit rules agree with the true advantages of calls
    Credit(Box<commands::credit::Arguments>),
    /// Train, import or describe models
    #[command(subcommand)]
    Model(commands::model::Arguments),
    /// Download, generate or describe datasets
    #[command(subcommand)]
    Data(commands::data::Arguments),
    /// Score a file of predictions like the dataset's official evaluator
    Score(commands::score::Arguments),
    /// Time every kernel of training and generation against this machine's roofline
    Kernels(commands::kernels::Arguments),
    /// Recompute golden files and report the deviations on this machine
    #[command(subcommand)]
    Verify(commands::verify::Arguments),
    /// Show this machine's resources and the memory that an experiment would need
    Doctor(commands::doctor::Arguments),
}

/// Runs the command given by the process's arguments, with the benchmarks of `registry`. Call it
/// first in `main`: it may re-execute the process with other environment variables, and it
/// resets the handling of SIGPIPE.
pub fn main(registry: Registry) -> ExitCode {
    if let Some(code) = work(&registry) {
        return code;
    }
    leyden_lm::process::reexec_with_env();
    leyden_train::set_revision!();
    // This link leads to the running program even if its file has been replaced by another version.
    leyden_suite::worker::set_program("/proc/self/exe".into());
    restore_sigpipe();
    let matches = names::fill(Cli::command(), &registry).get_matches();
    let command = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.command,
        Err(error) => error.exit(),
    };
    let registry = &registry;
    let result = match command {
        Command::Run(arguments) => commands::run::run(&arguments, registry),
        Command::Sft(arguments) => commands::sft::run(&arguments, registry),
        Command::Sweep(arguments) => commands::sweep::run(&arguments, registry),
        Command::Eval(arguments) => {
            commands::eval::run(&arguments, &names::given(&matches, registry), registry)
        }
        Command::Serve(arguments) => commands::serve::run(&arguments),
        Command::Rollouts(arguments) => commands::rollouts::run(&arguments),
        Command::Report(arguments) => commands::report::run(&arguments),
        Command::Compare(arguments) => commands::compare::run(&arguments),
        Command::Credit(arguments) => commands::credit::run(&arguments, registry),
        Command::Model(arguments) => commands::model::run(&arguments, registry),
        Command::Data(arguments) => commands::data::run(&arguments, registry),
        Command::Score(arguments) => commands::score::run(&arguments, registry),
        Command::Kernels(arguments) => commands::kernels::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments, registry),
        Command::Doctor(arguments) => commands::doctor::run(&arguments, registry),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("leyden: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs as a worker of a benchmark, where the arguments ask for one; see
/// [`leyden_suite::worker`]. Before anything else: a worker needs neither libtorch nor its variables.
fn work(registry: &Registry) -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(leyden_suite::worker::ARGUMENT) {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    let result = registry.get(&name).and_then(Benchmark::work);
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leyden: {}", sentence(&error));
            ExitCode::FAILURE
        }
    })
}

/// The error and its causes on one line, skipping causes that an error's message already
/// contains.
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

/// Restores the default action of SIGPIPE, so that the process exits silently when the reader of
/// its output closes the pipe (`leyden data info … | head`); by default a Rust program panics.
fn restore_sigpipe() {
    // SAFETY: the default action is a valid disposition, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        names::fill(Cli::command(), &leyden_suite::registry()).debug_assert();
        names::fill(Cli::command(), &Registry::new()).debug_assert();
    }

    /// Names of benchmarks and datasets; comments and help texts may use them as examples.
    const NAMES: [&str; 6] = ["calc", "calcx", "sql", "spider", "rag", "musique"];

    /// Neither the trainer nor the command line refers to a benchmark by name: both get them from
    /// the registry.
    #[test]
    fn no_benchmark_is_hard_coded() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for folder in [own.join("src"), own.join("../train/src")] {
            collect(&folder, &mut files);
        }
        assert!(files.len() > 40, "{files:?}");
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let program = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in program.lines().enumerate() {
                if line.trim_start().starts_with("//") {
                    continue;
                }
                let line = line.to_lowercase();
                let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
                let named = words.any(|word| NAMES.contains(&word))
                    || ["spider", "musique"].iter().any(|name| line.contains(name));
                assert!(!named, "{}, line {}: {line}", path.display(), number + 1);
            }
        }
    }

    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else {
                files.push(path);
            }
        }
    }
}
