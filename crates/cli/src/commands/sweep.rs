//! `leyden sweep`: runs an experiment in several variants with several seeds.
//!
//! Each cell runs in its own process of this program, so that a crash does not affect other
//! cells. All cells are validated before the first one runs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use leyden_suite::Registry;
use leyden_sweep::{
    Cell, Event, Job, Options, Revision, State, Sweep, SweepFolder, check, parse_seeds, quoted,
    work,
};
use leyden_train::{Experiment, provenance};

/// Arguments of `leyden sweep`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Sweep file (TOML)
    file: PathBuf,
    /// Seeds, instead of the file's: 1..5 or 1,2,7
    #[arg(long)]
    seeds: Option<String>,
    /// Number of cells to run in parallel
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Print the command of every cell and stop
    #[arg(long)]
    dry_run: bool,
    /// Write a Slurm job array and stop; --workers then limits the number of parallel tasks
    #[arg(long, value_name = "OUT.sbatch")]
    slurm: Option<PathBuf>,
    /// Sweep folder; by default one named after the file in runs/
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Run failed cells again
    #[arg(long)]
    retry: bool,
    /// Resume cells that another revision of the program started
    #[arg(long)]
    any_revision: bool,
    /// Only the cell on this line of cells.jsonl, counted from 1
    #[arg(long, hide = true, value_name = "LINE")]
    cell: Option<usize>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<ExitCode> {
    if arguments.workers == 0 {
        bail!("--workers must be at least 1");
    }
    let seeds = arguments.seeds.as_deref().map(parse_seeds).transpose()?;
    let sweep = Sweep::read(&arguments.file, seeds.as_deref())?;
    let root = arguments.folder.clone();
    let root = root.unwrap_or_else(|| Path::new("runs").join(format!("sweep-{}", sweep.name)));
    let folder = SweepFolder::at(root);
    check_cells(arguments, &sweep, &folder, registry)?;
    if arguments.dry_run {
        return dry_run(&sweep, &folder);
    }
    let frozen = folder.freeze(&sweep)?;
    if let Some(out) = &arguments.slurm {
        return slurm(arguments, &sweep, &folder, (&frozen, out), registry);
    }
    let cells = match arguments.cell {
        None => sweep.cells,
        Some(line) => {
            let cell = line.checked_sub(1).and_then(|index| frozen.get(index));
            let cell = cell.with_context(|| {
                format!("--cell {line}: {} has {} cells", folder.root().display(), frozen.len())
            })?;
            vec![cell.clone()]
        }
    };
    work_on(arguments, &folder, &cells)
}

/// Validates all cells before any of them runs.
fn check_cells(
    arguments: &Arguments,
    sweep: &Sweep,
    folder: &SweepFolder,
    registry: &Registry,
) -> Result<()> {
    let resolve = |cell: &Cell| {
        let mut overrides = cell.overrides.clone();
        overrides.push(format!("seed={}", cell.seed));
        Experiment::parse(&sweep.base_text, &sweep.base, &overrides, registry)
            .map(|experiment| experiment.to_toml())
            .map_err(|error| error.to_string())
    };
    let here = if arguments.any_revision {
        None
    } else {
        serde_json::from_value::<Revision>(provenance::collect(serde_json::Map::new())).ok()
    };
    let rewrite = |before: &str| Experiment::rewritten(before, registry);
    Ok(check(folder, &sweep.path, &sweep.cells, &resolve, &rewrite, here.as_ref())?)
}

/// The arguments of `leyden` that run a cell.
fn cell_arguments(folder: &SweepFolder, cell: &Cell) -> Vec<String> {
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut words = vec!["run".to_owned(), path(folder.base())];
    for text in &cell.overrides {
        words.extend(["--set".to_owned(), text.clone()]);
    }
    words.extend(["--seed".to_owned(), cell.seed.to_string()]);
    words.extend(["--folder".to_owned(), path(folder.run_folder(cell))]);
    words
}

fn dry_run(sweep: &Sweep, folder: &SweepFolder) -> Result<ExitCode> {
    for cell in &sweep.cells {
        let words: Vec<String> =
            cell_arguments(folder, cell).iter().map(|word| quoted(word)).collect();
        let state = match folder.state(cell)? {
            State::Waiting => String::new(),
            State::Begun => "  # begun".to_owned(),
            State::Running(by) => format!("  # running: {by}"),
            State::Finished => "  # finished".to_owned(),
            State::Failed(why) => format!("  # failed: {why}"),
        };
        println!("leyden {}{state}", words.join(" "));
    }
    eprintln!(
        "{} cells: {} variants, baseline {}",
        sweep.cells.len(),
        sweep.variants.len(),
        sweep.baseline
    );
    Ok(ExitCode::SUCCESS)
}

fn slurm(
    arguments: &Arguments,
    sweep: &Sweep,
    folder: &SweepFolder,
    (frozen, out): (&[Cell], &Path),
    registry: &Registry,
) -> Result<ExitCode> {
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
    let root = absolute(folder.root())?;
    let wanted = |cell: &&Cell| frozen.iter().position(|other| other == *cell);
    let mut lines: Vec<usize> =
        sweep.cells.iter().filter_map(|cell| wanted(&cell)).map(|index| index + 1).collect();
    lines.sort_unstable();
    let experiment =
        Experiment::parse(&sweep.base_text, &sweep.base, &sweep.cells[0].overrides, registry)?;
    let mut command = vec![std::env::current_exe()?, "sweep".into(), absolute(&arguments.file)?];
    command.extend(["--folder".into(), root.clone()]);
    let mut command: Vec<String> =
        command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(seeds) = &arguments.seeds {
        command.extend(["--seeds".to_owned(), seeds.clone()]);
    }
    for (given, option) in
        [(arguments.retry, "--retry"), (arguments.any_revision, "--any-revision")]
    {
        command.extend(given.then(|| option.to_owned()));
    }
    let job = Job {
        name: sweep.name.clone(),
        lines,
        at_once: (arguments.workers > 1).then_some(arguments.workers),
        cpus: experiment.model.threads,
        directory: std::env::current_dir()?,
        output: root.join("status").join("slurm-%A_%a.txt"),
        command,
    };
    std::fs::write(out, job.script()).with_context(|| out.display().to_string())?;
    println!("{} cells: submit them with `sbatch {}`", job.lines.len(), out.display());
    Ok(ExitCode::SUCCESS)
}

fn work_on(arguments: &Arguments, folder: &SweepFolder, cells: &[Cell]) -> Result<ExitCode> {
    let program = std::env::current_exe().context("path of this executable")?;
    let command = |cell: &Cell| {
        let mut command = Command::new(&program);
        command.args(cell_arguments(folder, cell));
        command
    };
    let number = |cell: &Cell| cells.iter().position(|other| other.id == cell.id).unwrap_or(0) + 1;
    let of = cells.len();
    let report = |event: Event<'_>| match event {
        Event::Began(cell) => eprintln!("[{}/{of}] {}: started", number(cell), cell.id),
        Event::Finished(cell, time) => {
            let seconds = time.as_secs_f64();
            eprintln!("[{}/{of}] {}: finished after {seconds:.1} s", number(cell), cell.id);
        }
        Event::Failed(cell, why) => eprintln!("[{}/{of}] {}: FAILED: {why}", number(cell), cell.id),
    };
    let options = Options { workers: arguments.workers, retry: arguments.retry };
    let tally = work(folder, cells, options, &command, &report)?;
    for (cell, why) in &tally.failed {
        println!("failed: {cell}: {why}");
    }
    for (cell, by) in &tally.held {
        println!("running elsewhere: {cell}: {by}");
    }
    println!(
        "{} of {of} cells finished ({} before), {} failed, {} running elsewhere, {} not started: {}",
        tally.skipped + tally.finished,
        tally.skipped,
        tally.failed.len(),
        tally.held.len(),
        tally.left,
        folder.root().display()
    );
    if tally.is_complete() {
        return Ok(ExitCode::SUCCESS);
    }
    if tally.left > 0 || !tally.held.is_empty() {
        println!("run the same command again to resume");
    }
    if !tally.failed.is_empty() {
        println!("use --retry to run failed cells again");
    }
    Ok(ExitCode::FAILURE)
}
