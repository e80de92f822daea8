//! Which cell a worker runs next.
//!
//! Cells are taken in their order, passing over those that wait for tuning: a cell of a variant
//! with tuning cells is free once all of these have ended.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use crate::cell::Cell;
use crate::choice::{Made, Measure};
use crate::error::SweepError;
use crate::folder::{State, SweepFolder};
use crate::lock::{CellLock, Claim, claim};
use crate::work::{Outcome, Tally};

/// The cells of a call of [`crate::work()`], shared by its workers.
pub(crate) struct Queue<'a> {
    folder: &'a SweepFolder,
    cells: &'a [Cell],
    /// All tuning cells of the folder, whether or not they are among `cells`.
    tuning: Vec<Cell>,
    retry: bool,
    measure: &'a Measure<'a>,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Indices of the cells that have not been taken, ascending.
    pending: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    /// Ids of the tuning cells that a worker has waited for.
    awaited: HashSet<String>,
}

/// What a worker does next.
pub(crate) enum Next {
    /// Run this cell, and hold the lock until its outcome is recorded.
    Run(Taken),
    /// Wait: all other cells need tuning cells that are running. The first of these, if it has
    /// not been named before.
    Wait(Option<Cell>),
    Done,
}

/// A cell to run.
pub(crate) struct Taken {
    pub index: usize,
    /// With the chosen point of the grid, if its variant has one.
    pub cell: Cell,
    pub lock: CellLock,
}

/// Result of trying to take a cell.
enum Attempt {
    Taken(Cell, CellLock),
    Ended(Outcome),
    /// Tuning cells of its variant have not ended.
    NotYet,
}

impl<'a> Queue<'a> {
    pub fn new(
        folder: &'a SweepFolder,
        cells: &'a [Cell],
        retry: bool,
        measure: &'a Measure<'a>,
    ) -> Result<Self, SweepError> {
        let outcomes = cells.iter().map(|_| None).collect();
        let pending = (0..cells.len()).collect();
        let progress = Progress { pending, outcomes, awaited: HashSet::new() };
        let progress = Mutex::new(progress);
        Ok(Self { folder, cells, tuning: folder.tuning()?, retry, measure, progress })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// Takes the first free cell. Cells are locked before another worker can look, so that a cell
    /// that has been taken is always seen as running.
    pub fn next(&self) -> Result<Next, SweepError> {
        let mut progress = self.progress();
        loop {
            let mut at = 0;
            while let Some(&index) = progress.pending.get(at) {
                let outcome = match self.attempt(&self.cells[index])? {
                    Attempt::NotYet => {
                        at += 1;
                        continue;
                    }
                    Attempt::Taken(cell, lock) => {
                        progress.pending.remove(at);
                        return Ok(Next::Run(Taken { index, cell, lock }));
                    }
                    Attempt::Ended(outcome) => outcome,
                };
                progress.pending.remove(at);
                progress.outcomes[index] = Some(outcome);
            }
            if let Some(next) = self.wait(&mut progress)? {
                return Ok(next);
            }
        }
    }

    /// The tuning cells that a cell waits for; none for a tuning cell.
    fn tuning_of(&self, cell: &Cell) -> Vec<Cell> {
        let own = |tuning: &&Cell| cell.point.is_none() && tuning.variant == cell.variant;
        self.tuning.iter().filter(own).cloned().collect()
    }

    fn attempt(&self, cell: &Cell) -> Result<Attempt, SweepError> {
        let folder = self.folder;
        if folder.is_finished(cell) {
            return Ok(Attempt::Ended(Outcome::Skipped));
        }
        let tuning = self.tuning_of(cell);
        if !tuning.iter().all(|cell| folder.has_ended(cell)) {
            return Ok(Attempt::NotYet);
        }
        let lock = match claim(&folder.lock(cell))? {
            Claim::Taken(lock) => lock,
            Claim::Held(by) => return Ok(Attempt::Ended(Outcome::Held(by))),
        };
        // Another worker may have finished it since the first check.
        if folder.is_finished(cell) {
            return Ok(Attempt::Ended(Outcome::Skipped));
        }
        let failure = folder.failure(cell);
        if let Some(why) = failure.as_ref().filter(|_| !self.retry) {
            return Ok(Attempt::Ended(Outcome::Failed(why.clone())));
        }
        let chosen = if tuning.is_empty() {
            cell.clone()
        } else {
            match folder.choose(&tuning, self.measure)? {
                Made::Choice(choice) => choice.apply(cell),
                Made::NotYet => return Ok(Attempt::NotYet),
                Made::Impossible(why) => {
                    let why = format!("no point of the grid can be chosen for its variant: {why}");
                    return Ok(Attempt::Ended(Outcome::Waiting(why)));
                }
            }
        };
        if let Some(why) = failure
            && !folder.forget_failure(cell)?
        {
            return Ok(Attempt::Ended(Outcome::Failed(why)));
        }
        Ok(Attempt::Taken(chosen, lock))
    }

    /// What to do if no pending cell is free; `None` to look again.
    fn wait(&self, progress: &mut Progress) -> Result<Option<Next>, SweepError> {
        let mut running: Option<Cell> = None;
        let mut again: Vec<usize> = Vec::new();
        let mut variants: HashSet<&str> = HashSet::new();
        for index in progress.pending.clone() {
            let cell = &self.cells[index];
            if !variants.insert(&cell.variant) {
                continue;
            }
            let mut open = self.tuning_of(cell);
            let all = open.len();
            open.retain(|cell| !self.folder.has_ended(cell));
            let own = |cell: &Cell| self.cells.iter().position(|other| other.id == cell.id);
            let Some(known) = open.iter().map(own).collect::<Option<Vec<usize>>>() else {
                // Another call's task: waiting could take forever.
                let of_variant = |other: &usize| self.cells[*other].variant == cell.variant;
                for other in progress.pending.extract_if(.., |other| of_variant(other)) {
                    progress.outcomes[other] = Some(Outcome::Waiting(waits_for(&open, all)));
                }
                return Ok(None);
            };
            if open.is_empty() {
                return Ok(None);
            }
            for (cell, own) in open.into_iter().zip(known) {
                match (self.folder.state(&cell)?, &progress.outcomes[own]) {
                    (State::Running(_), _) => running = running.or(Some(cell)),
                    (_, Some(Outcome::Interrupted)) => return Ok(Some(Next::Done)),
                    // The process that was running it has been killed.
                    (_, Some(_)) => again.push(own),
                    (_, None) => {}
                }
            }
        }
        if progress.pending.is_empty() {
            return Ok(Some(Next::Done));
        }
        if !again.is_empty() {
            progress.pending.extend(again);
            progress.pending.sort_unstable();
            return Ok(None);
        }
        let new = running.filter(|cell| progress.awaited.insert(cell.id.clone()));
        Ok(Some(Next::Wait(new)))
    }

    pub fn record(&self, index: usize, outcome: Outcome) {
        self.progress().outcomes[index] = Some(outcome);
    }

    /// The results of all cells.
    pub fn tally(self) -> Result<Tally, SweepError> {
        let progress = self.progress.into_inner().unwrap_or_else(|broken| broken.into_inner());
        let mut tally = Tally::default();
        for (cell, outcome) in self.cells.iter().zip(progress.outcomes) {
            let id = cell.id.clone();
            match outcome.map(|outcome| since(self.folder, cell, outcome)) {
                Some(Outcome::Skipped) => tally.skipped += 1,
                Some(Outcome::Finished) => tally.finished += 1,
                Some(Outcome::Failed(why)) => {
                    let chosen =
                        cell.point.is_some() && self.folder.choice(&cell.variant)?.is_some();
                    let list = if chosen { &mut tally.settled } else { &mut tally.failed };
                    list.push((id, why));
                }
                Some(Outcome::Held(by)) => tally.held.push((id, by)),
                Some(Outcome::Waiting(why)) => tally.waiting.push((id, why)),
                Some(Outcome::Interrupted) | None => tally.left += 1,
            }
        }
        Ok(tally)
    }
}

/// The outcome of a tuning cell that was running elsewhere and has been waited for.
fn since(folder: &SweepFolder, cell: &Cell, outcome: Outcome) -> Outcome {
    if cell.point.is_none() || !matches!(outcome, Outcome::Held(_)) {
        return outcome;
    }
    if folder.is_finished(cell) {
        return Outcome::Skipped;
    }
    folder.failure(cell).map_or(outcome, Outcome::Failed)
}

fn waits_for(open: &[Cell], all: usize) -> String {
    format!(
        "{} of the {all} tuning cells of its variant have not ended, {} among them: run the tuning \
         cells first",
        open.len(),
        open.first().map_or("", |cell| cell.id.as_str()),
    )
}
