//! The sweep folder: what is written where, and who may write it.
//!
//! ```text
//! sweep.toml           the sweep file, with the sweep's name
//! base.toml            the experiment it starts from, as every cell sees it
//! cells.jsonl          one line a cell; lines are added and never changed
//! cells/ID/            the run folders
//! status/ID.lock       held while the cell runs
//! status/ID.log        what its runs printed
//! status/ID.failed     why it failed, until it is tried again
//! report/              what `leyden report` makes of it
//! ```
//!
//! A cell is finished when its run says so; nothing is written down twice.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::cell::{Cell, Sweep};
use crate::error::SweepError;
use crate::file::SweepFile;
use crate::lock::{self, Claim};

/// The file of the cells; a folder that has it is a sweep folder.
pub const CELLS: &str = "cells.jsonl";

/// A sweep's folder.
#[derive(Debug, Clone)]
pub struct SweepFolder {
    root: PathBuf,
}

/// What has become of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing has been written yet.
    Waiting,
    /// Begun and stopped; it goes on where it was.
    Begun,
    /// A run is going on; by whom.
    Running(String),
    Finished,
    /// Why.
    Failed(String),
}

impl SweepFolder {
    /// The folder at `root`, which need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether a folder is that of a sweep.
    pub fn is_one(root: &Path) -> bool {
        root.join(CELLS).is_file()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The base experiment, as frozen.
    pub fn base(&self) -> PathBuf {
        self.root.join("base.toml")
    }

    pub fn run_folder(&self, cell: &Cell) -> PathBuf {
        self.root.join("cells").join(&cell.id)
    }

    /// What the cell's runs printed.
    pub fn log(&self, cell: &Cell) -> PathBuf {
        self.status(cell, "log")
    }

    pub(crate) fn lock(&self, cell: &Cell) -> PathBuf {
        self.status(cell, "lock")
    }

    pub(crate) fn failed(&self, cell: &Cell) -> PathBuf {
        self.status(cell, "failed")
    }

    /// Ids contain dots, so the ending is appended rather than set.
    fn status(&self, cell: &Cell, ending: &str) -> PathBuf {
        self.root.join("status").join(format!("{}.{ending}", cell.id))
    }

    /// Writes the sweep down, or adds to it what it does not have: further seeds and variants
    /// join a sweep, what is there never changes. Returns all cells, in the order of the file.
    ///
    /// # Errors
    /// A folder that holds a sweep of another base experiment or in which a cell's id stands
    /// for something else; the file system's own.
    pub fn freeze(&self, sweep: &Sweep) -> Result<Vec<Cell>, SweepError> {
        for folder in ["cells", "status"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).map_err(|error| SweepError::file(path, error))?;
        }
        // Workers that start together must not write over each other.
        let path = self.root.join("status").join(".lock");
        let lock = open_lock(&path)?;
        lock.lock().map_err(|error| SweepError::file(&path, error))?;
        let mut cells = if Self::is_one(&self.root) { self.cells()? } else { Vec::new() };
        self.check_base(sweep, cells.is_empty())?;
        let before = cells.len();
        for cell in &sweep.cells {
            match cells.iter().find(|frozen| frozen.id == cell.id) {
                None => cells.push(cell.clone()),
                Some(frozen) if frozen == cell => {}
                Some(frozen) => {
                    let (old, new) = (frozen.overrides.join(" "), cell.overrides.join(" "));
                    let what = format!("cell {} has `{old}` in it and `{new}` here", cell.id);
                    return Err(SweepError::OtherSweep { path: self.root.clone(), what });
                }
            }
        }
        if cells.len() > before {
            let line = |cell| serde_json::to_string(cell).expect("a cell is plain data") + "\n";
            let text: String = cells.iter().map(line).collect();
            write_atomic(&self.root.join(CELLS), text.as_bytes())?;
        }
        write_atomic(&self.root.join("sweep.toml"), named(sweep).as_bytes())?;
        Ok(cells)
    }

    fn check_base(&self, sweep: &Sweep, new: bool) -> Result<(), SweepError> {
        let path = self.base();
        match fs::read_to_string(&path) {
            Ok(before) if before == sweep.base_text => Ok(()),
            // Stopped between the base and the cells.
            _ if new => write_atomic(&path, sweep.base_text.as_bytes()),
            Ok(_) => {
                let what = format!("its base.toml is not {} as it is now", sweep.base.display());
                Err(SweepError::OtherSweep { path: self.root.clone(), what })
            }
            Err(error) => Err(SweepError::file(path, error)),
        }
    }

    /// The frozen cells.
    ///
    /// # Errors
    /// A folder without them, or a line that is no cell.
    pub fn cells(&self) -> Result<Vec<Cell>, SweepError> {
        let path = self.root.join(CELLS);
        if !path.is_file() {
            return Err(SweepError::NoSweep { path: self.root.clone() });
        }
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
                return Err(refuse(format!("`{}` is no id of a cell", cell.id)));
            }
            if cells.iter().any(|other| other.id == cell.id) {
                return Err(refuse(format!("cell {} is in it twice", cell.id)));
            }
            cells.push(cell);
        }
        Ok(cells)
    }

    /// The sweep file as it was last given.
    ///
    /// # Errors
    /// If it is missing or cannot be understood.
    pub fn file(&self) -> Result<SweepFile, SweepError> {
        SweepFile::read(&self.root.join("sweep.toml"))
    }

    /// Whether the cell's run is complete.
    pub fn is_finished(&self, cell: &Cell) -> bool {
        self.run_folder(cell).join("finished").is_file()
    }

    /// Why the cell failed, if it did and has not been tried again.
    pub fn failure(&self, cell: &Cell) -> Option<String> {
        let text = fs::read(self.failed(cell)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// What has become of a cell.
    ///
    /// # Errors
    /// The file system's own.
    pub fn state(&self, cell: &Cell) -> Result<State, SweepError> {
        if self.is_finished(cell) {
            return Ok(State::Finished);
        }
        // Not claimed where nothing is locked: a reader makes no files.
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

/// The text of the sweep file with the sweep's name in it, which may be that of the file: a
/// folder that is copied elsewhere keeps it.
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

/// Whoever reads the file meanwhile sees the old text or the new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), SweepError> {
    leyden_core::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|error| SweepError::file(path, error))
}
