//! Workers, which claim free cells, run them and report the results.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cell::Cell;
use crate::choice::Measure;
use crate::error::SweepError;
use crate::folder::{SweepFolder, write_atomic};
use crate::lock::CellLock;
use crate::queue::{Next, Queue, Taken};

/// Options of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Number of cells to run in parallel.
    pub workers: usize,
    /// Whether failed cells are retried.
    pub retry: bool,
}

/// A progress event.
#[derive(Debug)]
pub enum Event<'a> {
    Began(&'a Cell),
    Finished(&'a Cell, Duration),
    Failed(&'a Cell, &'a str),
    /// A worker waits, because no cell is free before this tuning cell, which is running, has
    /// ended.
    Waits(&'a Cell),
}

/// Results of the requested cells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Finished before.
    pub skipped: usize,
    /// Finished now.
    pub finished: usize,
    /// Failed cells, now or before, with the reason.
    pub failed: Vec<(String, String)>,
    /// Cells that other processes are running, with the holder.
    pub held: Vec<(String, String)>,
    /// Failed tuning cells that are part of their variant's choice, with the reason: they are not
    /// run again.
    pub settled: Vec<(String, String)>,
    /// Cells that were not run because their variant's tuning is not complete, with the reason.
    pub waiting: Vec<(String, String)>,
    /// Cells that were not run because a run was interrupted.
    pub left: usize,
}

impl Tally {
    /// Whether all requested cells are finished, or failed in a tuning that is complete.
    pub fn is_complete(&self) -> bool {
        let open = [&self.failed, &self.held, &self.waiting];
        open.iter().all(|cells| cells.is_empty()) && self.left == 0
    }
}

/// Result of one cell.
pub(crate) enum Outcome {
    Skipped,
    Finished,
    Failed(String),
    Held(String),
    /// It was not run, because its variant's tuning is not complete, with the reason.
    Waiting(String),
    /// The run was interrupted by a user or a scheduler; the cell has not failed.
    Interrupted,
}

/// How often a worker looks whether the tuning cells that it waits for have ended.
const POLL: Duration = Duration::from_millis(200);

/// Runs the `cells` that are neither finished, nor failed, nor locked by other processes, each
/// with `command`, whose run folder must be [`SweepFolder::run_folder`]. Its output goes to the
/// cell's log. After an interrupted run no further cell is started.
///
/// A cell of a variant with tuning cells runs once all of these have ended, with the point of the
/// grid that is best by `measure`. Tuning cells should come first in `cells`. If nothing else is
/// free, workers wait for tuning cells among `cells` that are running, here or in other processes,
/// and take over those whose process ends before them. For tuning cells that are not among `cells`
/// they do not wait.
///
/// # Errors
/// Errors of the file system. Failed cells are counted, not returned as errors.
pub fn work(
    folder: &SweepFolder,
    cells: &[Cell],
    options: Options,
    command: &(dyn Fn(&Cell) -> Command + Sync),
    measure: &Measure<'_>,
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Tally, SweepError> {
    let queue = Queue::new(folder, cells, options.retry, measure)?;
    let stopped = AtomicBool::new(false);
    let worker = || -> Result<(), SweepError> {
        while !stopped.load(Ordering::Relaxed) {
            match queue.next()? {
                Next::Done => break,
                Next::Wait(new) => {
                    if let Some(cell) = &new {
                        report(Event::Waits(cell));
                    }
                    std::thread::sleep(POLL);
                }
                Next::Run(taken) => {
                    let outcome = one(folder, &taken, command, report)?;
                    if matches!(outcome, Outcome::Interrupted) {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    queue.record(taken.index, outcome);
                }
            }
        }
        Ok(())
    };
    let worker = || worker().inspect_err(|_| stopped.store(true, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.workers.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    queue.tally()
}

/// Runs a cell and records a failure in the folder.
fn one(
    folder: &SweepFolder,
    taken: &Taken,
    command: &(dyn Fn(&Cell) -> Command + Sync),
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Outcome, SweepError> {
    let cell = &taken.cell;
    report(Event::Began(cell));
    let started = Instant::now();
    match run(folder, cell, command(cell), &taken.lock)? {
        None => {
            report(Event::Finished(cell, started.elapsed()));
            Ok(Outcome::Finished)
        }
        Some(Ended::Interrupted) => Ok(Outcome::Interrupted),
        Some(Ended::Failed(why)) => {
            write_atomic(&folder.failed(cell), format!("{why}\n").as_bytes())?;
            report(Event::Failed(cell, &why));
            Ok(Outcome::Failed(why))
        }
    }
}

/// How an unfinished run ended.
enum Ended {
    Failed(String),
    Interrupted,
}

/// Runs the command to completion; `None` if it finished the cell.
fn run(
    folder: &SweepFolder,
    cell: &Cell,
    mut command: Command,
    lock: &CellLock,
) -> Result<Option<Ended>, SweepError> {
    let path = folder.log(cell);
    let fail = |error: std::io::Error| SweepError::file(&path, error);
    let mut log = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
    let before = log.seek(SeekFrom::End(0)).map_err(fail)?;
    let (out, err) = (log.try_clone().map_err(fail)?, log.try_clone().map_err(fail)?);
    command.stdin(lock.as_stdin().map_err(fail)?).stdout(out).stderr(err);
    let status = match command.status() {
        Ok(status) => status,
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            return Ok(Some(Ended::Failed(format!("{program} cannot be started: {error}"))));
        }
    };
    if status.success() && folder.is_finished(cell) {
        return Ok(None);
    }
    if was_interrupted(status) {
        return Ok(Some(Ended::Interrupted));
    }
    let printed = tail(&path, before).map_err(fail)?;
    Ok(Some(Ended::Failed(sentence(&printed, status))))
}

/// Whether the run was stopped by SIGINT, SIGHUP or SIGTERM, as a user or a scheduler does.
/// SIGKILL does not count, because it is also the result of running out of memory.
#[cfg(unix)]
fn was_interrupted(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const HUP_INT_TERM: [i32; 3] = [1, 2, 15];
    status.signal().is_some_and(|signal| HUP_INT_TERM.contains(&signal))
}

#[cfg(not(unix))]
fn was_interrupted(_: ExitStatus) -> bool {
    false
}

/// The end of a file's contents after `from`.
fn tail(path: &Path, from: u64) -> std::io::Result<String> {
    const MOST: u64 = 1 << 16;
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(MOST))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a run failed: the program's error message, or else its last line, or else its exit
/// status.
fn sentence(printed: &str, status: ExitStatus) -> String {
    let lines = || printed.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let own = lines().rev().find_map(|line| line.strip_prefix("leyden: "));
    let ended = match status.success() {
        true => "it ended without finishing".to_owned(),
        false => format!("it ended with {status}"),
    };
    match own.or_else(|| lines().next_back()) {
        Some(line) if status.code() == Some(1) => line.to_owned(),
        Some(line) => format!("{ended}; last output: {line}"),
        None => ended,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_error_message_of_a_failed_run_is_found() {
        let code = |code: i32| ExitStatus::from_raw(code << 8);
        let killed = ExitStatus::from_raw(9);
        let printed = "step 1\rstep 2\nleyden: step 3: the loss is NaN\nbye\n";
        assert_eq!(sentence(printed, code(1)), "step 3: the loss is NaN");
        assert_eq!(sentence("step 1\rstep 2\r\n", code(1)), "step 2");
        let words = sentence("step 7", killed);
        assert!(words.contains("signal: 9") && words.contains("step 7"), "{words}");
        assert_eq!(sentence(" \n", code(0)), "it ended without finishing");
        assert!(was_interrupted(ExitStatus::from_raw(15)) && !was_interrupted(killed));
    }
}
