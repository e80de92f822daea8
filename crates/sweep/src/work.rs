//! Workers, which claim free cells, run them and report the results.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cell::Cell;
use crate::error::SweepError;
use crate::folder::{SweepFolder, write_atomic};
use crate::lock::{CellLock, Claim, claim};

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
    /// Cells that were not run because a run was interrupted.
    pub left: usize,
}

impl Tally {
    /// Whether all requested cells are finished.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.held.is_empty() && self.left == 0
    }
}

/// Result of one cell.
enum Outcome {
    Skipped,
    Finished,
    Failed(String),
    Held(String),
    /// The run was interrupted by a user or a scheduler; the cell has not failed.
    Interrupted,
}

/// Runs the `cells` that are neither finished, nor failed, nor locked by other processes, each
/// with `command`, whose run folder must be [`SweepFolder::run_folder`]. Its output goes to the
/// cell's log. After an interrupted run no further cell is started.
///
/// # Errors
/// Errors of the file system. Failed cells are counted, not returned as errors.
pub fn work(
    folder: &SweepFolder,
    cells: &[Cell],
    options: Options,
    command: &(dyn Fn(&Cell) -> Command + Sync),
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Tally, SweepError> {
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let worker = || -> Result<(), SweepError> {
        while !stopped.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(index) else { break };
            let outcome = one(folder, cell, options.retry, command, report).inspect_err(|_| {
                stopped.store(true, Ordering::Relaxed);
            })?;
            if matches!(outcome, Outcome::Interrupted) {
                stopped.store(true, Ordering::Relaxed);
            }
            outcomes.lock().unwrap_or_else(|broken| broken.into_inner()).push((index, outcome));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.workers.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let mut outcomes = outcomes.into_inner().unwrap_or_else(|broken| broken.into_inner());
    outcomes.sort_by_key(|(index, _)| *index);
    let mut tally = Tally { left: cells.len() - outcomes.len(), ..Tally::default() };
    for (index, outcome) in outcomes {
        let id = || cells[index].id.clone();
        match outcome {
            Outcome::Skipped => tally.skipped += 1,
            Outcome::Finished => tally.finished += 1,
            Outcome::Failed(why) => tally.failed.push((id(), why)),
            Outcome::Held(by) => tally.held.push((id(), by)),
            Outcome::Interrupted => tally.left += 1,
        }
    }
    Ok(tally)
}

fn one(
    folder: &SweepFolder,
    cell: &Cell,
    retry: bool,
    command: &(dyn Fn(&Cell) -> Command + Sync),
    report: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Outcome, SweepError> {
    if folder.is_finished(cell) {
        return Ok(Outcome::Skipped);
    }
    let lock = match claim(&folder.lock(cell))? {
        Claim::Taken(lock) => lock,
        Claim::Held(by) => return Ok(Outcome::Held(by)),
    };
    // Another worker may have finished it since the first check.
    if folder.is_finished(cell) {
        return Ok(Outcome::Skipped);
    }
    if let Some(why) = folder.failure(cell) {
        if !retry {
            return Ok(Outcome::Failed(why));
        }
        let path = folder.failed(cell);
        fs::remove_file(&path).map_err(|error| SweepError::file(path, error))?;
    }
    report(Event::Began(cell));
    let started = Instant::now();
    match run(folder, cell, command(cell), &lock)? {
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
