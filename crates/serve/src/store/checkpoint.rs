//! Moves committed pages from the log into the file, beside the writer.
//!
//! SQLite does it within a commit by default, whose caller then waits for two more syncs. Here
//! a second connection copies while the writer goes on, again and again until little is added
//! meanwhile; that little the writer copies itself, and the log starts again from its beginning.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};

use rusqlite::Connection;

use super::StoreError;
use super::schema::open_writer;

/// Bytes of content after which the log is copied.
const EVERY: usize = 16 << 20;

/// Pages that the writer may copy itself: about a megabyte.
const FEW: i64 = 256;
/// Rounds after which the writer copies whatever is left: it adds faster than the disk takes.
const ROUNDS: usize = 6;

const IDLE: u8 = 0;
const COPYING: u8 = 1;
const COPIED: u8 = 2;

/// The writer's view of the copying thread.
pub(super) struct Checkpointer {
    sender: Sender<()>,
    phase: Arc<AtomicU8>,
    bytes: usize,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, durable: bool) -> Result<Self, StoreError> {
        let db = open_writer(path, durable)?;
        let (sender, receiver) = channel();
        let phase = Arc::new(AtomicU8::new(IDLE));
        let seen = phase.clone();
        let run = move || {
            while receiver.recv().is_ok() {
                // One that fails leaves the log as it is; the next one copies more.
                let _ = catch_up(&db);
                seen.store(COPIED, Ordering::Release);
            }
        };
        std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(run)
            .map_err(|error| StoreError::Database(format!("no thread for checkpoints: {error}")))?;
        Ok(Self { sender, phase, bytes: 0 })
    }

    /// Called by the writer between two groups.
    pub(super) fn after_commit(&mut self, db: &Connection, bytes: usize) {
        self.bytes += bytes;
        match self.phase.load(Ordering::Acquire) {
            COPIED => {
                let _ = checkpoint(db, "PASSIVE");
                self.phase.store(IDLE, Ordering::Release);
            }
            IDLE if self.bytes >= EVERY => {
                self.bytes = 0;
                self.phase.store(COPYING, Ordering::Release);
                let _ = self.sender.send(());
            }
            _ => {}
        }
    }

    /// Called by the writer at the end.
    pub(super) fn finish(&mut self, db: &Connection) {
        let _ = checkpoint(db, "TRUNCATE");
    }
}

/// Copies until few pages are added while it copies.
fn catch_up(db: &Connection) -> rusqlite::Result<()> {
    let mut copied = 0;
    for _ in 0..ROUNDS {
        let log = checkpoint(db, "PASSIVE")?;
        if log - copied < FEW {
            break;
        }
        copied = log;
    }
    Ok(())
}

/// Returns the length of the log in pages, as it was at the start.
fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<i64> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
