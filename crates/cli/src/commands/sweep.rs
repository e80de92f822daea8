//! `leyden sweep`: runs an experiment in several variants with several seeds.
//!
//! Each cell runs in its own process of this program, so that a crash does not affect other
//! cells. All cells are validated before the first one runs. In a sweep with `[tune]` the tuning
//! cells come first.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use leyden_report::sweep::tuning_areas;
use leyden_suite::Registry;
use leyden_sweep::{
    CELLS, Cell, Event, Job, Options, Revision, State, Sweep, SweepFolder, TUNING, Tally, check,
    parse_seeds, quoted, work,
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
    /// Only the tuning cell on this line of tuning.jsonl, counted from 1
    #[arg(long, hide = true, value_name = "LINE", conflicts_with = "cell")]
    tuning_cell: Option<usize>,
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
    let line = |line: usize, option: &str, cells: &[Cell]| {
        let cell = line.checked_sub(1).and_then(|index| cells.get(index)).cloned();
        cell.with_context(|| {
            format!("{option} {line}: {} has {} cells", folder.root().display(), cells.len())
        })
    };
    let cells = match (arguments.cell, arguments.tuning_cell) {
        (None, None) => [sweep.tuning, sweep.cells].concat(),
        (Some(cell), _) => vec![line(cell, "--cell", &frozen)?],
        (None, Some(cell)) => vec![line(cell, "--tuning-cell", &folder.tuning()?)?],
    };
    work_on(arguments, &folder, &cells)
}

/// A cell with the point that was chosen for its variant; `None` if the choice is yet to be made.
fn chosen(sweep: &Sweep, folder: &SweepFolder, cell: &Cell) -> Result<Option<Cell>> {
    if sweep.tuning.is_empty() {
        return Ok(Some(cell.clone()));
    }
    Ok(folder.choice(&cell.variant)?.map(|choice| choice.apply(cell)))
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
    folder.check_tuning(sweep)?;
    // Cells whose point is yet to be chosen are those of tuning cells, apart from the seed.
    let mut cells = sweep.tuning.clone();
    for cell in &sweep.cells {
        cells.extend(chosen(sweep, folder, cell)?);
    }
    Ok(check(folder, &sweep.path, &cells, &resolve, &rewrite, here.as_ref())?)
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
    for cell in &sweep.tuning {
        println!("{}", listed(folder, cell)?);
    }
    for cell in &sweep.cells {
        match chosen(sweep, folder, cell)? {
            Some(cell) => println!("{}", listed(folder, &cell)?),
            None => println!("# {}: waits for the tuning of `{}`", cell.id, cell.variant),
        }
    }
    if !sweep.tuning.is_empty() {
        eprintln!("{} tuning cells, then", sweep.tuning.len());
    }
    eprintln!(
        "{} cells: {} variants, baseline {}",
        sweep.cells.len(),
        sweep.variants.len(),
        sweep.baseline
    );
    Ok(ExitCode::SUCCESS)
}

/// The command of a cell, with its state.
fn listed(folder: &SweepFolder, cell: &Cell) -> Result<String> {
    let words: Vec<String> = cell_arguments(folder, cell).iter().map(|word| quoted(word)).collect();
    let state = match folder.state(cell)? {
        State::Waiting => String::new(),
        State::Begun => "  # begun".to_owned(),
        State::Running(by) => format!("  # running: {by}"),
        State::Finished => "  # finished".to_owned(),
        State::Failed(why) => format!("  # failed: {why}"),
    };
    Ok(format!("leyden {}{state}", words.join(" ")))
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
    let directory = std::env::current_dir()?;
    let write =
        |file: &'static str, cells: &[Cell], frozen: &[Cell], out: &Path| -> Result<usize> {
            let line = |cell: &Cell| Some(frozen.iter().position(|other| other == cell)? + 1);
            let mut lines: Vec<usize> = cells.iter().filter_map(line).collect();
            lines.sort_unstable();
            let count = lines.len();
            let job = Job {
                name: sweep.name.clone(),
                file,
                lines,
                at_once: (arguments.workers > 1).then_some(arguments.workers),
                cpus: experiment.model.threads,
                directory: directory.clone(),
                output: root.join("status").join("slurm-%A_%a.txt"),
                command: command.clone(),
            };
            std::fs::write(out, job.script()).with_context(|| out.display().to_string())?;
            Ok(count)
        };
    let count = write(CELLS, &sweep.cells, frozen, out)?;
    if sweep.tuning.is_empty() {
        println!("{count} cells: submit them with `sbatch {}`", out.display());
        return Ok(ExitCode::SUCCESS);
    }
    let first = tuning_script(out);
    let tuning = write(TUNING, &sweep.tuning, &folder.tuning()?, &first)?;
    println!(
        "phase 1, tuning: {tuning} cells: submit them with `sbatch --parsable {}`, which prints the \
         number of the job\n\
         phase 2, comparison: {count} cells: submit them with `sbatch --dependency=afterany:JOB {}`; \
         a task whose variant's tuning is not complete ends without running its cell",
        first.display(),
        out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The script of the tuning cells beside that of the others: `job-tune.sbatch` for `job.sbatch`.
fn tuning_script(out: &Path) -> PathBuf {
    let part = |part: Option<&std::ffi::OsStr>| {
        part.map_or_else(String::new, |part| part.to_string_lossy().into_owned())
    };
    let path = out.with_file_name(format!("{}-tune", part(out.file_stem())));
    let ending = part(out.extension());
    if ending.is_empty() { path } else { PathBuf::from(format!("{}.{ending}", path.display())) }
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
        Event::Waits(cell) => {
            eprintln!("[{}/{of}] waiting for {}, which is running", number(cell), cell.id);
        }
    };
    let measure = |cells: &[Cell]| tuning_areas(folder, cells).map_err(|error| error.to_string());
    let options = Options { workers: arguments.workers, retry: arguments.retry };
    let tally = work(folder, cells, options, &command, &measure, &report)?;
    print_tally(&tally, folder, of);
    Ok(if tally.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_tally(tally: &Tally, folder: &SweepFolder, of: usize) {
    for (cell, why) in &tally.failed {
        println!("failed: {cell}: {why}");
    }
    for (cell, why) in &tally.settled {
        println!("failed, and counted as such in the choice for its variant: {cell}: {why}");
    }
    for (cell, by) in &tally.held {
        println!("running elsewhere: {cell}: {by}");
    }
    for (cell, why) in &tally.waiting {
        println!("not started: {cell}: {why}");
    }
    println!(
        "{} of {of} cells finished ({} before), {} failed, {} running elsewhere, {} not started: {}",
        tally.skipped + tally.finished,
        tally.skipped,
        tally.failed.len() + tally.settled.len(),
        tally.held.len(),
        tally.left + tally.waiting.len(),
        folder.root().display()
    );
    if tally.left > 0 || !tally.held.is_empty() {
        println!("run the same command again to resume");
    }
    if !tally.failed.is_empty() {
        println!("use --retry to run failed cells again");
    }
}
