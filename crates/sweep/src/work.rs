//! Workers: take a free cell, run it, say what became of it.

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

/// How to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Cells that run at the same time.
    pub workers: usize,
    /// Whether cells that failed are tried again.
    pub retry: bool,
}

/// Something that happened, told while it does.
#[derive(Debug)]
pub enum Event<'a> {
    Began(&'a Cell),
    Finished(&'a Cell, Duration),
    Failed(&'a Cell, &'a str),
}

/// What became of the cells that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Finished before.
    pub skipped: usize,
    /// Finished now.
    pub finished: usize,
    /// Failed cells, now or before, with why.
    pub failed: Vec<(String, String)>,
    /// Cells that others are running, and who.
    pub held: Vec<(String, String)>,
    /// Cells that were not come to, because a run was interrupted from outside.
    pub left: usize,
}

impl Tally {
    /// Whether every cell that was asked for is finished.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.held.is_empty() && self.left == 0
    }
}

/// What became of one cell.
enum Outcome {
    Skipped,
    Finished,
    Failed(String),
    Held(String),
    /// A person or a scheduler ended the run: no fault of the cell.
    Interrupted,
}

/// Runs the `cells` that are neither finished, nor failed, nor taken by others, each by
/// `command`, whose run folder must be [`SweepFolder::run_folder`]. Its output goes to the
/// cell's log. After a run that was interrupted from outside no further cell is begun.
///
/// # Errors
/// The file system's own. Cells that fail are no error here but counted.
pub fn work(
    folder: &SweepFolder,
    cells: &[Cell],
    options: Options,
    command: &(dyn Fn(&Cell) -> Command + Sync),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Tally, SweepError> {
    let next = AtomicUsize::new(0);
    let stopped = AtomicBool::new(false);
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let worker = || -> Result<(), SweepError> {
        while !stopped.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(index) else { break };
            let outcome = one(folder, cell, options.retry, command, tell).inspect_err(|_| {
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
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Outcome, SweepError> {
    if folder.is_finished(cell) {
        return Ok(Outcome::Skipped);
    }
    let lock = match claim(&folder.lock(cell))? {
        Claim::Taken(lock) => lock,
        Claim::Held(by) => return Ok(Outcome::Held(by)),
    };
    // Another worker may have had it until just now.
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
    tell(Event::Began(cell));
    let started = Instant::now();
    match run(folder, cell, command(cell), &lock)? {
        None => {
            tell(Event::Finished(cell, started.elapsed()));
            Ok(Outcome::Finished)
        }
        Some(Ended::Interrupted) => Ok(Outcome::Interrupted),
        Some(Ended::Failed(why)) => {
            write_atomic(&folder.failed(cell), format!("{why}\n").as_bytes())?;
            tell(Event::Failed(cell, &why));
            Ok(Outcome::Failed(why))
        }
    }
}

/// How a run ended that did not finish.
enum Ended {
    Failed(String),
    Interrupted,
}

/// Runs the command to its end; `None` if it finished the cell.
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

/// Whether somebody asked the run to stop: by the keyboard, by hanging up, or by terminating
/// it, as a scheduler does. A kill is not among them, for it is what running out of memory
/// looks like.
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

/// The last of what a file says after `from`.
fn tail(path: &Path, from: u64) -> std::io::Result<String> {
    const MOST: u64 = 1 << 16;
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(MOST))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why a run failed: the sentence that the program ends with, or else its last line, or else
/// how it ended.
fn sentence(printed: &str, status: ExitStatus) -> String {
    let lines = || printed.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let own = lines().rev().find_map(|line| line.strip_prefix("leyden: "));
    let ended = match status.success() {
        true => "it ended without finishing".to_owned(),
        false => format!("it ended with {status}"),
    };
    match own.or_else(|| lines().next_back()) {
        Some(line) if status.code() == Some(1) => line.to_owned(),
        Some(line) => format!("{ended}; its last words: {line}"),
        None => ended,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_sentence_of_a_failed_run_is_found() {
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
