//! Who runs a cell.
//!
//! The lock is the operating system's own on an open file, as a run's is, and not a file whose
//! existence or age is the lock: it ends with the process that holds it, however that ends, so
//! there are no stale locks, no clocks to compare and nothing to clean up. Linux carries it
//! over NFS to other machines; on a file system that cannot lock, taking one fails and the
//! sweep says so. What stands in the file (machine and process) is for people.
//!
//! The run itself holds the lock too, as its standard input: if the sweep is killed and the
//! run lives on, the cell stays taken until the run has ended.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::error::SweepError;
use crate::folder::open_lock;

/// A cell's lock, held until it and every process that was given it are gone.
#[derive(Debug)]
pub struct CellLock {
    file: File,
}

/// What came of taking a lock.
#[derive(Debug)]
pub enum Claim {
    Taken(CellLock),
    /// By whom.
    Held(String),
}

/// Takes the lock at `path` if it is free.
///
/// # Errors
/// The file system's own, one that cannot lock among them.
pub fn claim(path: &Path) -> Result<Claim, SweepError> {
    // Somebody who only looks, or a process that was just killed, holds it a moment.
    let mut claim = probe(path)?;
    for _ in 0..5 {
        if matches!(claim, Claim::Held(_)) {
            std::thread::sleep(Duration::from_millis(20));
            claim = probe(path)?;
        }
    }
    if let Claim::Taken(lock) = &claim {
        lock.sign().map_err(|error| SweepError::file(path, error))?;
    }
    Ok(claim)
}

/// As [`claim`], without saying in the file who holds it: to see whether it is held.
pub(crate) fn probe(path: &Path) -> Result<Claim, SweepError> {
    let mut file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Claim::Taken(CellLock { file })),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Half-written or unreadable: somebody all the same.
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let unknown = holder.is_empty();
            Ok(Claim::Held(if unknown { "another process" } else { holder }.to_owned()))
        }
        Err(TryLockError::Error(error)) => {
            let what = format!("this file system cannot lock files: {error}");
            Err(SweepError::file(path, what))
        }
    }
}

impl CellLock {
    fn sign(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "process {} on {}", std::process::id(), machine())?;
        file.flush()
    }

    /// The lock as a process's standard input, for the process to hold as well.
    ///
    /// # Errors
    /// If the process has no file handles left.
    pub fn as_stdin(&self) -> std::io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }
}

/// This machine's name, for people.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "this machine".to_owned(), |name| name.trim().to_owned())
}
