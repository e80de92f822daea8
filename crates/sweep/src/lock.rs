//! Locks of cells.
//!
//! Uses an operating system lock on an open file, like a run's lock, not the existence or age of
//! a file: it ends with the process that holds it, so there are no stale locks, no clock
//! comparisons and no clean-up. On Linux it works across machines over NFS; on a file system
//! without locking, claiming fails with an error. The file's contents (machine and process) are
//! informational.
//!
//! The run also holds the lock, as its standard input: if the sweep is killed and the run
//! survives, the cell stays locked until the run has ended.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::error::SweepError;
use crate::folder::open_lock;

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
    // A process that only probes, or that was just killed, holds it for a moment.
    let mut claim = probe(path)?;
    for _ in 0..5 {
        if matches!(claim, Claim::Held(_)) {
            std::thread::sleep(Duration::from_millis(20));
            claim = probe(path)?;
        }
    }
    if let Claim::Taken(lock) = &claim {
        lock.write_holder().map_err(|error| SweepError::file(path, error))?;
    }
    Ok(claim)
}

/// Like [`claim`], but does not write the holder to the file: to test whether it is held.
pub(crate) fn probe(path: &Path) -> Result<Claim, SweepError> {
    let mut file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Claim::Taken(CellLock { file })),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // It is held even if the file is incomplete or unreadable.
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
    fn write_holder(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "process {} on {}", std::process::id(), machine())?;
        file.flush()
    }

    /// The lock as a process's standard input, so that the process also holds it.
    ///
    /// # Errors
    /// No file handles are left.
    pub fn as_stdin(&self) -> std::io::Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }
}

/// This machine's name, for messages.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "this machine".to_owned(), |name| name.trim().to_owned())
}
