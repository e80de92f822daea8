//! `leyden data`: what is in a dataset, worlds as files, and the hub's datasets.

mod info;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use leyden_hub::Hub;
use leyden_mini::{MiniCalc, MiniMusique, MiniSpider};

use crate::dataset::TEST_TASKS;
use crate::fetch;
use crate::table::{Side, aligned, counted};

/// What is done with a dataset.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Count rows, kinds, flaws and lengths, and show a few rows
    Info {
        /// mini-calc, mini-spider, mini-musique, or a file of Calc-X, Spider or MuSiQue, with
        /// rows if wished: FILE:10..20
        source: String,
        /// Seed of a generated world
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Spider: folder with tables.json and the databases, if not that of the questions
        #[arg(long, value_name = "FOLDER")]
        databases: Option<PathBuf>,
    },
    /// Write a generated world as files, in the format of the real dataset
    Make {
        world: World,
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
        dataset: Fetched,
        /// Folder for the files [default: data/ and the dataset's name]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Repository of the hub [default: MU-NLPC/Calc-X, lklimkiewicz/Spider-Raw,
        /// bdsaglam/musique]
        #[arg(long)]
        repo: Option<String>,
        /// MuSiQue: unanswerable questions as well
        #[arg(long)]
        all: bool,
    },
    /// Measure how much of what supports an answer each way of searching finds
    Recall(super::recall::Arguments),
}

/// A generated world.
#[derive(Clone, Copy, ValueEnum)]
pub enum World {
    #[value(name = "mini-calc")]
    Calc,
    #[value(name = "mini-spider")]
    Spider,
    #[value(name = "mini-musique")]
    Musique,
}

/// A dataset that can be fetched.
#[derive(Clone, Copy, ValueEnum)]
pub enum Fetched {
    Calcx,
    Spider,
    Musique,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments {
        Arguments::Info { source, seed, databases } => {
            info::info(source, *seed, databases.as_deref())?;
        }
        Arguments::Make { world, out, seed, train, test } => {
            make(*world, out, *seed, *train, *test)?;
        }
        Arguments::Fetch { dataset, out, repo, all } => {
            let hub = Hub::from_env().with_progress(true);
            let (name, default) = match dataset {
                Fetched::Calcx => ("calcx", "MU-NLPC/Calc-X"),
                Fetched::Spider => ("spider", "lklimkiewicz/Spider-Raw"),
                Fetched::Musique => ("musique", "bdsaglam/musique"),
            };
            let repo = repo.as_deref().unwrap_or(default);
            let out = out.clone().unwrap_or_else(|| Path::new("data").join(name));
            let written = match dataset {
                Fetched::Calcx => fetch::calcx::fetch(&hub, repo, &out)?,
                Fetched::Spider => fetch::spider::fetch(&hub, repo, &out)?,
                Fetched::Musique => fetch::musique::fetch(&hub, repo, &out, *all)?,
            };
            print!("{written}");
        }
        Arguments::Recall(arguments) => return super::recall::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn make(world: World, out: &Path, seed: u64, train: u64, test: usize) -> Result<()> {
    let files = match world {
        World::Calc => {
            MiniCalc::new(seed).write_jsonl(out, train, test)?;
            vec![("train.jsonl", train as usize, "task"), ("test.jsonl", test, "task")]
        }
        World::Spider => {
            let world = MiniSpider::new(seed);
            world.write(out, train, test)?;
            let databases = world.databases().len();
            vec![
                ("train.json", train as usize, "task"),
                ("dev.json", test, "task"),
                ("tables.json", databases, "schema"),
                ("database", databases, "database"),
            ]
        }
        World::Musique => {
            let world = MiniMusique::new(seed);
            world.write_jsonl(out, train, test)?;
            vec![
                ("train.jsonl", train as usize, "task"),
                ("test.jsonl", test, "task"),
                ("corpus.jsonl", world.passages().len(), "passage"),
            ]
        }
    };
    let row = |(file, count, one): (&str, usize, &str)| {
        vec![counted(count, one), out.join(file).display().to_string()]
    };
    let rows: Vec<Vec<String>> = files.into_iter().map(row).collect();
    print!("{}", aligned(&rows, &[Side::Left]));
    Ok(())
}
