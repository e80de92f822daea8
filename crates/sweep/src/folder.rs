//! The sweep folder: its files and their locking.
//!
//! ```text
//! sweep.toml           the sweep file, with the sweep's name
//! base.toml            the base experiment of all cells
//! cells.jsonl          one line per cell; append-only
//! tuning.jsonl         one line per tuning cell, if the sweep has a [tune]
//! choices/VARIANT.json the point of the grid that was chosen for a variant
//! cells/ID/            the run folders
//! status/ID.lock       held while the cell runs
//! status/ID.log        output of its runs
//! status/ID.failed     why it failed, until it is retried
//! report/              the output of `leyden report`
//! ```
//!
//! A cell is finished when its run folder is marked as finished; this is not recorded twice.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::cell::{Cell, Sweep};
use crate::error::SweepError;
use crate::file::SweepFile;
use crate::lock::{self, Claim};
use crate::tune::overlap;

/// The file of the cells; a folder with it is a sweep folder.
pub const CELLS: &str = "cells.jsonl";

/// The file of the tuning cells.
pub const TUNING: &str = "tuning.jsonl";

/// A sweep's folder.
#[derive(Debug, Clone)]
pub struct SweepFolder {
    root: PathBuf,
}

/// State of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not started.
    Waiting,
    /// Started and stopped; it can be resumed.
    Begun,
    /// Running, with the holder of its lock.
    Running(String),
    Finished,
    /// Failed, with the reason.
    Failed(String),
}

impl SweepFolder {
    /// The folder at `root`, which need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether a folder is a sweep folder.
    pub fn is_one(root: &Path) -> bool {
        root.join(CELLS).is_file()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The frozen base experiment.
    pub fn base(&self) -> PathBuf {
        self.root.join("base.toml")
    }

    pub fn run_folder(&self, cell: &Cell) -> PathBuf {
        self.root.join("cells").join(&cell.id)
    }

    /// The log of the cell's runs.
    pub fn log(&self, cell: &Cell) -> PathBuf {
        self.status(cell, "log")
    }

    pub(crate) fn lock(&self, cell: &Cell) -> PathBuf {
        self.status(cell, "lock")
    }

    pub(crate) fn failed(&self, cell: &Cell) -> PathBuf {
        self.status(cell, "failed")
    }

    /// Ids contain dots, so the extension is appended rather than set.
    fn status(&self, cell: &Cell, ending: &str) -> PathBuf {
        self.root.join("status").join(format!("{}.{ending}", cell.id))
    }

    /// Writes the sweep, or adds new seeds and variants to an existing one; existing cells never
    /// change. Returns all cells without the tuning cells, in the order of the file.
    ///
    /// # Errors
    /// A folder with a sweep of another base experiment, with a different cell of the same id, or
    /// with another tuning; errors of the file system.
    pub fn freeze(&self, sweep: &Sweep) -> Result<Vec<Cell>, SweepError> {
        for folder in ["cells", "status"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|error| SweepError::file(path, error))?;
        }
        // Workers that start concurrently must not overwrite each other.
        let path = self.root.join("status").join(".lock");
        let lock = open_lock(&path)?;
        lock.lock().map_err(|error| SweepError::file(&path, error))?;
        let mut cells = if Self::is_one(&self.root) { self.cells()? } else { Vec::new() };
        self.check_base(sweep, cells.is_empty())?;
        let (tuned, tuning) = self.merged_tuning(sweep, &cells)?;
        let before = cells.len();
        for cell in &sweep.cells {
            match cells.iter().find(|frozen| frozen.id == cell.id) {
                None => cells.push(cell.clone()),
                Some(frozen) if frozen == cell => {}
                Some(frozen) => {
                    let (old, new) = (frozen.overrides.join(" "), cell.overrides.join(" "));
                    let what = format!("cell {} has `{old}` in it and `{new}` here", cell.id);
                    return Err(self.other_sweep(what));
                }
            }
        }
        if let Some(both) = tuning.iter().find(|own| cells.iter().any(|c| c.seed == own.seed)) {
            return Err(self.other_sweep(overlap(both.seed)));
        }
        // The tuning first: cells without it would be those of a sweep that does not tune.
        if tuning.len() > tuned {
            write_atomic(&self.root.join(TUNING), lines(&tuning).as_bytes())?;
        }
        if cells.len() > before {
            write_atomic(&self.root.join(CELLS), lines(&cells).as_bytes())?;
        }
        write_atomic(&self.root.join("sweep.toml"), named(sweep).as_bytes())?;
        Ok(cells)
    }

    fn check_base(&self, sweep: &Sweep, new: bool) -> Result<(), SweepError> {
        let path = self.base();
        match fs::read_to_string(&path) {
            Ok(before) if before == sweep.base_text => Ok(()),
            // Interrupted between writing the base and the cells.
            _ if new => write_atomic(&path, sweep.base_text.as_bytes()),
            Ok(_) => {
                let what = format!("its base.toml is not {} as it is now", sweep.base.display());
                Err(self.other_sweep(what))
            }
            Err(error) => Err(SweepError::file(path, error)),
        }
    }

    /// Rejects a sweep whose tuning is not that of the folder, as [`freeze`](Self::freeze) does.
    ///
    /// # Errors
    /// A folder with a variant that was tuned otherwise or not at all; errors of the file system.
    pub fn check_tuning(&self, sweep: &Sweep) -> Result<(), SweepError> {
        let cells = if Self::is_one(&self.root) { self.cells()? } else { Vec::new() };
        self.merged_tuning(sweep, &cells).map(drop)
    }

    /// The number of frozen tuning cells, and all tuning cells with those of new variants.
    fn merged_tuning(
        &self,
        sweep: &Sweep,
        cells: &[Cell],
    ) -> Result<(usize, Vec<Cell>), SweepError> {
        let mut all = self.tuning()?;
        let frozen = all.len();
        for variant in &sweep.variants {
            let own = |cell: &&Cell| cell.variant == *variant;
            let old: Vec<&Cell> = all[..frozen].iter().filter(own).collect();
            let new: Vec<&Cell> = sweep.tuning.iter().filter(own).collect();
            if old == new {
                continue;
            }
            if !old.is_empty() || cells.iter().any(|cell| cell.variant == *variant) {
                let what = format!("variant `{variant}` has another [tune] in it than here");
                return Err(self.other_sweep(what));
            }
            all.extend(new.into_iter().cloned());
        }
        Ok((frozen, all))
    }

    fn other_sweep(&self, what: String) -> SweepError {
        SweepError::OtherSweep { path: self.root.clone(), what }
    }

    /// The frozen cells without the tuning cells.
    ///
    /// # Errors
    /// A folder without cells, or an invalid line.
    pub fn cells(&self) -> Result<Vec<Cell>, SweepError> {
        if !self.root.join(CELLS).is_file() {
            return Err(SweepError::NoSweep { path: self.root.clone() });
        }
        self.read_cells(CELLS)
    }

    /// The frozen tuning cells; none if the sweep has no tuning.
    ///
    /// # Errors
    /// An invalid line.
    pub fn tuning(&self) -> Result<Vec<Cell>, SweepError> {
        if self.root.join(TUNING).is_file() { self.read_cells(TUNING) } else { Ok(Vec::new()) }
    }

    fn read_cells(&self, file: &str) -> Result<Vec<Cell>, SweepError> {
        let path = self.root.join(file);
        let text = fs::read_to_string(&path).map_err(|error| SweepError::file(&path, error))?;
        let mut cells: Vec<Cell> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let refuse =
                |what: String| SweepError::file(&path, format!("line {}: {what}", index + 1));
            let cell: Cell = serde_json::from_str(line)
                .map_err(|error| refuse(format!("not a cell: {error}")))?;
            // Ids become paths.
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if cell.id.is_empty() || cell.id.starts_with('.') || !cell.id.chars().all(plain) {
                return Err(refuse(format!("`{}` is not a valid cell id", cell.id)));
            }
            if cell.point.is_some() != (file == TUNING) {
                return Err(refuse(format!("tuning cells, and only those, are in {TUNING}")));
            }
            if cells.iter().any(|other| other.id == cell.id) {
                return Err(refuse(format!("cell {} is in it twice", cell.id)));
            }
            cells.push(cell);
        }
        Ok(cells)
    }

    /// The latest sweep file.
    ///
    /// # Errors
    /// The file is missing or invalid.
    pub fn file(&self) -> Result<SweepFile, SweepError> {
        SweepFile::read(&self.root.join("sweep.toml"))
    }

    /// Whether the cell's run is complete.
    pub fn is_finished(&self, cell: &Cell) -> bool {
        self.run_folder(cell).join("finished").is_file()
    }

    /// Why the cell failed, if it did and has not been retried.
    pub fn failure(&self, cell: &Cell) -> Option<String> {
        let text = fs::read(self.failed(cell)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The state of a cell.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn state(&self, cell: &Cell) -> Result<State, SweepError> {
        if self.is_finished(cell) {
            return Ok(State::Finished);
        }
        // Only probe existing lock files: reading the state must not create files.
        let lock = self.lock(cell);
        if lock.is_file()
            && let Claim::Held(by) = lock::probe(&lock)?
        {
            return Ok(State::Running(by));
        }
        Ok(match self.failure(cell) {
            Some(why) => State::Failed(why),
            None if self.run_folder(cell).join("config.toml").is_file() => State::Begun,
            None => State::Waiting,
        })
    }
}

fn lines(cells: &[Cell]) -> String {
    let line = |cell| serde_json::to_string(cell).expect("a cell is plain data") + "\n";
    cells.iter().map(line).collect()
}

/// The text of the sweep file with an explicit sweep name, so that a copied folder keeps the name
/// even if it was derived from the file name.
fn named(sweep: &Sweep) -> String {
    if sweep.name_is_written {
        sweep.text.clone()
    } else {
        format!("name = {:?}\n{}", sweep.name, sweep.text)
    }
}

pub(crate) fn open_lock(path: &Path) -> Result<File, SweepError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| SweepError::file(path, error))
}

/// Concurrent readers see either the old text or the new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), SweepError> {
    leyden_core::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|error| SweepError::file(path, error))
}
