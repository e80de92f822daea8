//! `leyden data`: what is in a dataset, worlds as files, and the hub's Calc-X.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::ValueEnum;
use leyden_mini::MiniCalc;

use crate::calcx_fetch;
use crate::dataset_info::Description;
use crate::sources::{self, Source};
use crate::table::counted;

/// What is done with a dataset.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Count rows, flaws, operations and lengths, and show a few rows
    Info {
        /// mini-calc, or a Calc-X file (.jsonl or .parquet), with rows if wished: FILE:10..20
        source: String,
        /// Seed of a generated world
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Write a generated world as files
    Make {
        world: World,
        /// Folder for train.jsonl and test.jsonl
        #[arg(long)]
        out: PathBuf,
        /// Seed of the world
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Number of training tasks
        #[arg(long, default_value_t = 10_000)]
        train: u64,
        /// Number of held-out tasks
        #[arg(long, default_value_t = leyden_mini::calc::TEST_TASKS)]
        test: usize,
    },
    /// Download a dataset of the Hugging Face hub and write it as JSONL
    Fetch {
        dataset: Fetched,
        /// Folder for the files
        #[arg(long, default_value = "data/calcx")]
        out: PathBuf,
        /// Repository of the hub
        #[arg(long, default_value = "MU-NLPC/Calc-X")]
        repo: String,
    },
}

/// A generated world.
#[derive(Clone, Copy, ValueEnum)]
pub enum World {
    MiniCalc,
}

/// A dataset that can be fetched.
#[derive(Clone, Copy, ValueEnum)]
pub enum Fetched {
    Calcx,
}

/// Training tasks of an endless world that `info` looks at.
const WORLD_SAMPLE: u64 = 5_000;

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments {
        Arguments::Info { source, seed } => info(source, *seed)?,
        Arguments::Make { world: World::MiniCalc, out, seed, train, test } => {
            MiniCalc::new(*seed).write_jsonl(out, *train, *test)?;
            println!(
                "train  {}  {}",
                counted(*train as usize, "task"),
                out.join("train.jsonl").display()
            );
            println!("test   {}  {}", counted(*test, "task"), out.join("test.jsonl").display());
        }
        Arguments::Fetch { dataset: Fetched::Calcx, out, repo } => {
            let written = calcx_fetch::fetch(repo, out)?;
            print!("{written}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn info(name: &str, seed: u64) -> Result<()> {
    match Source::parse(name)? {
        Source::MiniCalc => {
            let world = MiniCalc::new(seed);
            let templates = world.templates();
            let held_out = templates.iter().filter(|template| template.held_out).count();
            println!(
                "mini-calc (seed {seed}): {} templates, {held_out} of them kept for test; \
                 endless training tasks\n",
                templates.len()
            );
            let train: Vec<_> = (0..WORLD_SAMPLE).map(|index| world.train(index)).collect();
            print!("{}", Description::of("training, the first of the stream", &train));
            let test = world.test(leyden_mini::calc::TEST_TASKS);
            print!("\n{}", Description::of("test", &test));
        }
        Source::File { path, rows } => {
            let loaded = sources::load(&path)?;
            print_rejected(&loaded.rejected);
            let total = loaded.tasks.len();
            let tasks = match rows {
                None => &loaded.tasks[..],
                Some(rows) if rows.start < rows.end.min(total) => {
                    &loaded.tasks[rows.start..rows.end.min(total)]
                }
                Some(_) => bail!("{name}: the file has {}", counted(total, "good row")),
            };
            if tasks.is_empty() {
                bail!("{}: there is no good row in it", path.display());
            }
            print!("{}", Description::of(name, tasks));
        }
    }
    Ok(())
}

/// Rejected rows that are named one by one.
const NAMED: usize = 20;

fn print_rejected(rejected: &[leyden_calcx::Rejected]) {
    if rejected.is_empty() {
        return;
    }
    println!("{} rejected:", counted(rejected.len(), "row"));
    for row in rejected.iter().take(NAMED) {
        println!("  {row}");
    }
    if rejected.len() > NAMED {
        println!("  and {} more", rejected.len() - NAMED);
    }
    println!();
}
