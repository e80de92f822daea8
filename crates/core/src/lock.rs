//! Lock files: at most one process works in a folder.
//!
//! The lock is the operating system's on an open file, not the file's existence or age: it ends
//! with the process that holds it, so there are no stale locks, no clock comparisons and no
//! clean-up. On Linux it works across machines over NFS. The file's contents (process and machine)
//! are informational.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// The result of taking a lock.
#[derive(Debug)]
pub enum FileLock {
    /// Held until the file and all its duplicates are closed, also those in child processes.
    Taken(File),
    /// Held elsewhere: `process 17 on NAME`, or `another process` if the file does not say.
    Held(String),
}

/// Takes the lock at `path` if it is free, and writes this process into the file. The file is
/// created if it does not exist.
///
/// # Errors
/// File system errors, including a file system without locks.
pub fn take_lock(path: &Path) -> io::Result<FileLock> {
    let lock = probe_lock(path)?;
    if let FileLock::Taken(file) = &lock {
        write_holder(file)?;
    }
    Ok(lock)
}

/// Like [`take_lock`], but leaves the file's contents unchanged: to test whether it is held.
///
/// # Errors
/// As [`take_lock`].
pub fn probe_lock(path: &Path) -> io::Result<FileLock> {
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(FileLock::Taken(file)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // It is held even if the file is incomplete or unreadable.
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let unknown = holder.is_empty();
            Ok(FileLock::Held(if unknown { "another process" } else { holder }.to_owned()))
        }
        Err(TryLockError::Error(error)) => {
            Err(io::Error::new(error.kind(), format!("cannot lock this file: {error}")))
        }
    }
}

fn write_holder(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {} on {}", std::process::id(), machine())
}

/// This machine's name, for messages.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "this machine".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_process_and_ends_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        // The lock belongs to the open file, so a second one in this process acts as another
        // process.
        let FileLock::Taken(first) = take_lock(&path).unwrap() else { panic!("it is free") };
        for again in [take_lock(&path), probe_lock(&path)] {
            let FileLock::Held(holder) = again.unwrap() else { panic!("it is held") };
            assert!(holder.starts_with(&format!("process {} on ", std::process::id())), "{holder}");
        }
        drop(first);
        assert!(matches!(take_lock(&path).unwrap(), FileLock::Taken(_)));
        assert!(take_lock(&folder.path().join("none/lock")).is_err());
    }
}
