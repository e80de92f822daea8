//! `leyden data`: describes datasets, writes generated worlds, downloads datasets of the hub.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use leyden_hub::Hub;
use leyden_suite::benchmark::Fetch;
use leyden_suite::table::{Side, aligned, counted};
use leyden_suite::{Registry, TEST_TASKS, info};

/// Subcommands of `leyden data`.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Count rows, kinds, flaws and lengths, and show a few rows
    Info {
        /// A generated world, or a file of tasks, optionally with a range of rows: FILE:10..20
        source: String,
        /// Seed of a generated world
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Folder of the databases that the questions refer to, if not the questions' own
        #[arg(long, value_name = "FOLDER")]
        databases: Option<PathBuf>,
    },
    /// Write a generated world as files, in the format of the real dataset
    Make {
        world: String,
        /// Folder for the files
        #[arg(long)]
        out: PathBuf,
        /// Seed of the world
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Number of training tasks
        #[arg(long, default_value_t = 10_000)]
        train: u64,
        /// Number of held-out tasks
        #[arg(long, default_value_t = TEST_TASKS)]
        test: usize,
    },
    /// Download a dataset of the Hugging Face hub
    Fetch {
        dataset: String,
        /// Folder for the files [default: data/ and the dataset's name]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Repository of the hub
        #[arg(long)]
        repo: Option<String>,
        /// Also download files that tasks do not need, such as unanswerable questions
        #[arg(long)]
        all: bool,
    },
    /// Measure the recall of supporting passages of each retriever
    Recall(super::recall::Arguments),
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    match arguments {
        Arguments::Info { source, seed, databases } => {
            info::info(registry, source, *seed, databases.as_deref())?;
        }
        Arguments::Make { world, out, seed, train, test } => {
            let (world, _) = registry.world(world).context("there is no such world")?;
            let written = (world.make)(*seed).write(out, *train, *test)?;
            let row = |(file, count, one): (&str, usize, &str)| {
                vec![counted(count, one), out.join(file).display().to_string()]
            };
            let rows: Vec<Vec<String>> = written.into_iter().map(row).collect();
            print!("{}", aligned(&rows, &[Side::Left]));
        }
        Arguments::Fetch { dataset, out, repo, all } => {
            let hub = Hub::from_env().with_progress(true);
            let benchmark = registry.published(dataset)?;
            let published =
                benchmark.published().context("this benchmark has no published dataset")?;
            let out = out.clone().unwrap_or_else(|| Path::new("data").join(published.name));
            let repository = repo.as_deref().unwrap_or(published.repository);
            let fetch = Fetch { hub: &hub, repository, out: &out, all: *all };
            print!("{}", benchmark.fetch(&fetch)?);
        }
        Arguments::Recall(arguments) => return super::recall::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}
