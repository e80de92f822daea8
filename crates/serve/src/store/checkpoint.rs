//! Checkpoints the WAL into the database file, concurrently with the writer.
//!
//! By default SQLite checkpoints within a commit, whose caller then waits for two more syncs. Here
//! a second connection copies while the writer continues, repeatedly, until few pages are added
//! meanwhile; the writer copies those itself, and the WAL restarts from its beginning.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};

use rusqlite::Connection;

use super::StoreError;
use super::schema::open_writer;

/// Bytes written between two checkpoints.
const EVERY: usize = 16 << 20;

/// Maximum pages that the writer copies itself: about a megabyte.
const FEW: i64 = 256;
/// Rounds after which the writer copies the rest in any case: it adds pages faster than the disk
/// can copy them.
const ROUNDS: usize = 6;

const IDLE: u8 = 0;
const COPYING: u8 = 1;
const COPIED: u8 = 2;

/// The writer's handle of the checkpoint thread.
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
                // A failed checkpoint leaves the WAL unchanged; the next one copies more.
                let _ = catch_up(&db);
                seen.store(COPIED, Ordering::Release);
            }
        };
        std::thread::Builder::new().name("store-checkpoint".into()).spawn(run).map_err(
            |error| StoreError::Database(format!("cannot start the checkpoint thread: {error}")),
        )?;
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

    /// Called by the writer on shutdown.
    pub(super) fn finish(&mut self, db: &Connection) {
        let _ = checkpoint(db, "TRUNCATE");
    }
}

/// Copies until few pages are added during a copy.
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

/// Returns the WAL's length in pages at the start.
fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<i64> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
