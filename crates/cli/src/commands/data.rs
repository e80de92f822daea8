//! `leyden data`: what is in a dataset, worlds as files, and the hub's Calc-X.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use leyden_mini::MiniCalc;
use leyden_train::data::DemonstrationSource;

use crate::calcx_fetch;
use crate::dataset::{self, AGENTS};
use crate::dataset_info::Description;
use crate::sources::{self, Source};
use crate::table::counted;
use crate::tiny;

/// What is done with a dataset.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// Count rows, flaws, operations and lengths, and show a few rows
    Info {
        /// mini-calc, mini-spider, mini-musique, or a file of Calc-X, Spider or MuSiQue, with
        /// rows if wished: FILE:10..20
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
    /// Measure how much of what supports an answer each way of searching finds
    Recall(super::recall::Arguments),
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
        Arguments::Recall(arguments) => return super::recall::run(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// Lessons that `info` shows.
const LESSONS: u64 = 8;

fn info(name: &str, seed: u64) -> Result<()> {
    match Source::parse(name)? {
        Source::World(world) => {
            let agent = AGENTS.iter().find(|(_, known)| *known == world).map_or("calc", |(a, _)| a);
            let dataset = dataset::of(tiny::settings(agent, seed))?;
            println!("{world} (seed {seed}), endless training tasks\n");
            let train: Vec<_> = (0..WORLD_SAMPLE).map(|i| dataset.world().train(i)).collect();
            print!("{}", Description::of("training, the first of the stream", &train));
            let test = dataset.world().test(dataset::TEST_TASKS);
            print!("\n{}", Description::of("test", &test));
            println!("\nlessons of the tiny model, which is to be good at the protocol only");
            let lessons = tiny::lessons(agent, seed)?;
            for index in 0..LESSONS {
                let conversation = lessons.conversation(index);
                println!("  {index}");
                for message in &conversation.messages {
                    let speaker = format!("{:?}", message.role).to_lowercase();
                    let call = message.tool_calls.first();
                    let call = call.map(|c| format!("{}{}", c.name, c.arguments));
                    let text = message.content.replace('\n', " ⏎ ");
                    println!("    {speaker:<9} {text}{}", call.unwrap_or_default());
                }
            }
        }
        Source::File { path, rows } => {
            let dataset = dataset::of(tiny::settings(agent_of(&path)?, seed))?;
            let read = dataset.read(&path)?;
            sources::tell(&read, &path);
            let read = sources::cut(read, rows, name)?;
            if read.tasks.is_empty() {
                bail!("{}: there is no good row in it", path.display());
            }
            print!("{}", Description::of(name, &read.tasks));
        }
    }
    Ok(())
}

/// The agent whose dataset a file holds, by the fields of its beginning.
fn agent_of(path: &Path) -> Result<&'static str> {
    use std::io::Read;
    let mut start = Vec::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(1 << 20).read_to_end(&mut start)?;
    let start = String::from_utf8_lossy(&start);
    Ok(if start.contains("\"db_id\"") {
        "sql"
    } else if start.contains("\"paragraphs\"") || start.contains("\"question_decomposition\"") {
        "rag"
    } else {
        "calc"
    })
}
