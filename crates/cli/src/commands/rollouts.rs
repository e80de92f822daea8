//! `leyden rollouts`: lists, shows and exports recorded rollouts.
//!
//! Works on the store of a run folder and of a server, also while they are being written.

mod server;
mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use leyden_report::export::{
    ExportError, Filter, JsonLines, Line, ParquetFile, Reader, Rollout, RowWriter, RunStore,
    columns_of,
};

use leyden_suite::table::{Side, aligned, counted, shortened};
use server::ServerStore;

/// Default number of listed rollouts.
const LISTED: u64 = 50;

/// Subcommands of `leyden rollouts`.
#[derive(clap::Subcommand)]
pub enum Arguments {
    /// List rollouts, one per line
    Ls(Ls),
    /// Show one rollout: its calls with their credit, its signals, its reward
    Show(Show),
    /// Write rollouts for other programs, one row per model call
    #[command(after_long_help = columns_help())]
    Export(Export),
}

/// Arguments of `leyden rollouts ls`.
#[derive(clap::Args)]
pub struct Ls {
    /// Folder of a run, or of a server's store
    folder: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Maximum number of listed rollouts; 0 lists all
    #[arg(long, default_value_t = LISTED)]
    limit: u64,
}

/// Arguments of `leyden rollouts show`.
#[derive(clap::Args)]
pub struct Show {
    /// Folder of a run, or of a server's store
    folder: PathBuf,
    /// Rollout id as listed by `ls`: 12/train/5
    id: String,
    #[command(flatten)]
    reading: Reading,
}

/// Arguments of `leyden rollouts export`.
#[derive(clap::Args)]
pub struct Export {
    /// Folder of a run, or of a server's store
    folder: PathBuf,
    /// Format of the rows
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// File to write; without one, JSON lines go to standard output
    #[arg(long)]
    out: Option<PathBuf>,
    /// Column set to write
    #[arg(long, value_enum, default_value_t = Columns::All)]
    columns: Columns,
    #[command(flatten)]
    which: Which,
    /// Maximum number of written rollouts; 0 writes all
    #[arg(long, default_value_t = 0)]
    limit: u64,
    #[command(flatten)]
    reading: Reading,
}

/// Filters on rollouts.
#[derive(clap::Args)]
struct Which {
    /// Only rollouts of this training step
    #[arg(long)]
    step: Option<u64>,
    /// Only rollouts of this phase: train, greedy, sampled; on a server train or val
    #[arg(long)]
    phase: Option<String>,
    /// Only rollouts with at least this reward
    #[arg(long, value_name = "REWARD", allow_negative_numbers = true)]
    at_least: Option<f64>,
    /// Only rollouts with at most this reward
    #[arg(long, value_name = "REWARD", allow_negative_numbers = true)]
    at_most: Option<f64>,
    /// Only rollouts without a reward
    #[arg(long, conflicts_with_all = ["at_least", "at_most"])]
    missing: bool,
}

/// How prompts are decoded to text.
#[derive(clap::Args)]
struct Reading {
    /// tokenizer.json, or a folder with one, for prompts recorded only as ids; by default that of
    /// the run's trained model
    #[arg(long)]
    tokenizer: Option<PathBuf>,
}

/// Format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Jsonl,
    Parquet,
}

/// Column set of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Columns {
    All,
    /// Fields of verl's AgentLoopOutput, and of its rollout dumps
    Verl,
    /// Fields of prime-rl's TrainingSample
    PrimeRl,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match arguments {
        Arguments::Ls(arguments) => ls(arguments),
        Arguments::Show(arguments) => show(arguments),
        Arguments::Export(arguments) => export(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn ls(arguments: &Ls) -> Result<()> {
    let store = Store::open(&arguments.folder)?;
    let filter = arguments.which.filter(arguments.limit);
    let total = store.count(&filter)?;
    let lines = store.list(&filter)?;
    let mut rows = vec![
        ["rollout", "task", "reward", "calls", "signals", "answer"].map(str::to_owned).to_vec(),
    ];
    rows.extend(lines.iter().map(row));
    let sides = [Side::Left, Side::Left, Side::Right, Side::Right, Side::Right, Side::Left];
    print!("{}", aligned(&rows, &sides));
    let shown = lines.len() as u64;
    if shown < total {
        println!("{} of {total} rollouts; --limit 0 lists all", lines.len());
    } else {
        println!("{}", counted(lines.len(), "rollout"));
    }
    Ok(())
}

fn row(line: &Line) -> Vec<String> {
    let answer = match (&line.answer, &line.missing) {
        (_, Some(why)) => format!("({why})"),
        (Some(answer), None) => answer.clone(),
        (None, None) => String::new(),
    };
    vec![
        show::printable(&line.id),
        show::printable(&shortened(&line.task_id, 32)),
        line.reward.map_or_else(|| "none".to_owned(), |reward| format!("{reward:.3}")),
        line.calls.to_string(),
        line.signals.to_string(),
        show::printable(&shortened(&answer, 48)),
    ]
}

fn show(arguments: &Show) -> Result<()> {
    let store = Store::open(&arguments.folder)?;
    let Some(rollout) = store.rollout(&arguments.id)? else {
        bail!(
            "{} has no rollout `{}`; `leyden rollouts ls {0}` lists the available ones",
            arguments.folder.display(),
            arguments.id
        );
    };
    let decode = arguments.reading.decoder(&arguments.folder)?;
    print!("{}", show::transcript(&rollout, decode.as_deref()));
    Ok(())
}

fn export(arguments: &Export) -> Result<()> {
    let store = Store::open(&arguments.folder)?;
    let columns = columns_of(match arguments.columns {
        Columns::All => None,
        Columns::Verl => Some(Reader::Verl),
        Columns::PrimeRl => Some(Reader::PrimeRl),
    });
    let decode = arguments.reading.decoder(&arguments.folder)?;
    let mut writer: Box<dyn RowWriter> = match (arguments.format, &arguments.out) {
        (Format::Parquet, None) => bail!("--out is required for Parquet"),
        (Format::Parquet, Some(path)) => Box::new(ParquetFile::create(path, columns)?),
        (Format::Jsonl, Some(path)) => {
            let file = std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(JsonLines::new(path, file, columns))
        }
        (Format::Jsonl, None) => {
            let out: Box<dyn Write> = Box::new(std::io::stdout().lock());
            Box::new(JsonLines::new(Path::new("standard output"), out, columns))
        }
    };
    let filter = arguments.which.filter(arguments.limit);
    let mut rollouts = 0;
    store.each(&filter, &mut |mut rollout| {
        if let Some(decode) = &decode {
            for call in &mut rollout.calls {
                call.prompt.get_or_insert_with(|| decode(&call.prompt_ids));
            }
        }
        rollouts += 1;
        writer.write(&rollout)
    })?;
    let rows = writer.finish()?;
    if let Some(path) = &arguments.out {
        println!(
            "{}: {} of {}",
            path.display(),
            counted(rows as usize, "call"),
            counted(rollouts, "rollout")
        );
    }
    Ok(())
}

impl Which {
    fn filter(&self, limit: u64) -> Filter {
        Filter {
            step: self.step,
            phase: self.phase.clone(),
            at_least: self.at_least,
            at_most: self.at_most,
            missing: self.missing.then_some(true),
            offset: 0,
            limit: (limit > 0).then_some(limit),
        }
    }
}

type Decoder = Box<dyn Fn(&[u32]) -> String>;

impl Reading {
    /// Decodes ids to text; `None` if there is no tokenizer.
    fn decoder(&self, folder: &Path) -> Result<Option<Decoder>> {
        let path = match &self.tokenizer {
            Some(path) if path.is_dir() => path.join("tokenizer.json"),
            Some(path) => path.clone(),
            None => {
                let own = folder.join("final").join("tokenizer.json");
                if !own.is_file() {
                    return Ok(None);
                }
                own
            }
        };
        let tokenizer = leyden_text::Tokenizer::from_file(&path)?;
        Ok(Some(Box::new(move |ids: &[u32]| tokenizer.decode(ids, true))))
    }
}

/// The store of a run or of a server.
enum Store {
    Run(RunStore),
    Server(ServerStore),
}

impl Store {
    fn open(folder: &Path) -> Result<Self> {
        Ok(match ServerStore::open(folder)? {
            Some(store) => Self::Server(store),
            None => Self::Run(RunStore::open(folder)?),
        })
    }

    fn count(&self, filter: &Filter) -> Result<u64> {
        match self {
            Self::Run(store) => Ok(store.count(filter)?),
            Self::Server(store) => store.count(filter),
        }
    }

    fn list(&self, filter: &Filter) -> Result<Vec<Line>> {
        match self {
            Self::Run(store) => Ok(store.list(filter)?),
            Self::Server(store) => store.list(filter),
        }
    }

    fn rollout(&self, id: &str) -> Result<Option<Rollout>> {
        match self {
            Self::Run(store) => Ok(store.rollout(id)?),
            Self::Server(store) => store.rollout(id),
        }
    }

    fn each(
        &self,
        filter: &Filter,
        take: &mut dyn FnMut(Rollout) -> Result<(), ExportError>,
    ) -> Result<()> {
        match self {
            Self::Run(store) => Ok(store.each(filter, take)?),
            Self::Server(store) => store.each(filter, take),
        }
    }
}

/// The columns of an export, as help text.
fn columns_help() -> String {
    let columns = columns_of(None);
    let width = columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
    let part = |title: &str, reader: Reader| {
        let lines = columns.iter().filter(|column| column.reader == reader);
        let lines = lines.map(|column| format!("  {:width$}  {}\n", column.name, column.what));
        format!("{title}:\n{}", lines.collect::<String>())
    };
    [
        part("Columns of Leyden's own", Reader::Leyden),
        part("Columns that verl reads (AgentLoopOutput, rollout dumps)", Reader::Verl),
        part("Columns that prime-rl reads (TrainingSample)", Reader::PrimeRl),
    ]
    .join("\n")
}
