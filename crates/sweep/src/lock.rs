//! Locks of cells, which end with the process that holds them ([`leyden_core::take_lock`]).
//!
//! The run also holds the lock, as its standard input: if the sweep is killed and the run
//! survives, the cell stays locked until the run has ended.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use leyden_core::{FileLock, probe_lock, take_lock};

use crate::error::SweepError;

/// A cell's lock, held until this value is dropped and all processes that inherited it have
/// exited.
#[derive(Debug)]
pub struct CellLock {
    file: File,
}

/// The result of claiming a lock.
#[derive(Debug)]
pub enum Claim {
    Taken(CellLock),
    /// Held by another process, with its description.
    Held(String),
}

/// Acquires the lock at `path` if it is free.
///
/// # Errors
/// Errors of the file system, including a file system without locking.
pub fn claim(path: &Path) -> Result<Claim, SweepError> {
    let take = || take_lock(path).map(Claim::from).map_err(|error| SweepError::file(path, error));
    // A process that only probes, or that was just killed, holds it for a moment.
    let mut claim = take()?;
    for _ in 0..5 {
        if matches!(claim, Claim::Held(_)) {
            std::thread::sleep(Duration::from_millis(20));
            claim = take()?;
        }
    }
    Ok(claim)
}

/// Like [`claim`], but does not write the holder to the file: to test whether it is held.
pub(crate) fn probe(path: &Path) -> Result<Claim, SweepError> {
    probe_lock(path).map(Claim::from).map_err(|error| SweepError::file(path, error))
}

impl From<FileLock> for Claim {
    fn from(lock: FileLock) -> Self {
        match lock {
            FileLock::Taken(file) => Self::Taken(CellLock { file }),
            FileLock::Held(by) => Self::Held(by),
        }
    }
}

impl CellLock {
    /// The lock as a process's standard input, so that the process also holds it.
    ///
    /// # Errors
    /// No file handles are left.
    pub fn as_stdin(&self) -> std::io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }
}
