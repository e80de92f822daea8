//! The writer thread and its group commits.
//!
//! Writes that arrive while a group is being synced form the next group: one transaction and one
//! sync, then all its callers are notified. So callers share the cost of a sync, and none waits
//! for a timer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;
use super::checkpoint::Checkpointer;
use super::clock::Clock;
use super::index::{Effect, Index};

/// Maximum writes per group; bounds how long the first of them waits for the last.
const GROUP: usize = 512;

/// The context of a write.
pub(super) struct Writing<'a> {
    pub(super) db: &'a Connection,
    /// Changes to the index, applied once the group is durable.
    pub(super) effects: &'a mut Vec<Effect>,
    /// The store's time, in seconds since 1970.
    pub(super) now: f64,
    /// Event bytes of the rollouts written to, by row.
    pub(super) held: &'a mut HashMap<i64, u64>,
    /// Bytes of text and blobs written, used to schedule checkpoints.
    pub(super) bytes: &'a mut usize,
}

/// Notifies the caller of its write's result, once the group is committed or rolled back.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// One write: executes its statements and returns its acknowledgement, and the error if a failed
/// statement forces the group to roll back. Without a transaction (`None`) it executes nothing.
type Job = Box<dyn FnOnce(Option<&mut Writing<'_>>) -> (Acknowledge, Option<StoreError>) + Send>;

/// The writer's counters, for metrics.
#[derive(Debug, Default)]
pub struct WriterCounts {
    pub groups: AtomicU64,
    pub writes: AtomicU64,
    /// Writes currently queued.
    pub queue: AtomicU64,
}

/// A handle of the writer thread, which ends when the handle is dropped or closed.
pub(super) struct Writer {
    sender: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) counts: Arc<WriterCounts>,
}

impl Writer {
    pub(super) fn start(
        db: Connection,
        index: Arc<Index>,
        checkpointer: Checkpointer,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let counts = Arc::new(WriterCounts::default());
        let mut group = Group {
            db,
            index,
            checkpointer,
            clock,
            counts: counts.clone(),
            effects: Vec::new(),
            held: HashMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || group.run(&receiver))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), counts })
    }

    /// Queues a write. The receiver is notified once it is durable; dropping the receiver does not
    /// cancel it.
    ///
    /// A write validates before it changes anything: a validation error leaves the group intact,
    /// an SQLite error rolls back the whole group.
    pub(super) fn send<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |writing| {
            let result = match writing {
                Some(writing) => write(writing),
                // Its acknowledgement is the error of the group.
                None => Err(StoreError::Database("the write was not executed".into())),
            };
            let broken = match &result {
                Err(error @ StoreError::Database(_)) => Some(error.clone()),
                _ => None,
            };
            let acknowledge: Acknowledge = Box::new(move |committed| {
                // A dropped receiver does not undo the write.
                let _ = sender.send(committed.and(result));
            });
            (acknowledge, broken)
        });
        let jobs = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = jobs.as_ref() {
            self.counts.queue.fetch_add(1, Ordering::Relaxed);
            // If the thread has ended, the job and with it the sender are dropped: the caller gets
            // an error that the store is closed.
            let _ = jobs.send(job);
        }
        receiver
    }

    /// Ends the thread after all queued writes.
    pub(super) fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

struct Group {
    db: Connection,
    index: Arc<Index>,
    checkpointer: Checkpointer,
    clock: Clock,
    counts: Arc<WriterCounts>,
    effects: Vec<Effect>,
    held: HashMap<i64, u64>,
}

impl Group {
    fn run(&mut self, receiver: &Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP);
        while let Ok(first) = receiver.recv() {
            jobs.push(first);
            while jobs.len() < GROUP {
                match receiver.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => break,
                }
            }
            let count = jobs.len() as u64;
            self.commit(&mut jobs);
            self.counts.queue.fetch_sub(count, Ordering::Relaxed);
            self.counts.groups.fetch_add(1, Ordering::Relaxed);
            self.counts.writes.fetch_add(count, Ordering::Relaxed);
        }
        self.checkpointer.finish(&self.db);
    }

    fn commit(&mut self, jobs: &mut Vec<Job>) {
        self.effects.clear();
        let mut acknowledgements = Vec::with_capacity(jobs.len());
        let mut bytes = 0;
        let mut lost = self.statement("BEGIN IMMEDIATE").err();
        let now = self.clock.now();
        for job in jobs.drain(..) {
            let mut writing = Writing {
                db: &self.db,
                effects: &mut self.effects,
                held: &mut self.held,
                now,
                bytes: &mut bytes,
            };
            // After an error SQLite may have rolled back by itself: further statements would each
            // commit on their own, and be acknowledged as failed.
            let (acknowledge, broken) = job(lost.is_none().then_some(&mut writing));
            acknowledgements.push(acknowledge);
            lost = lost.or(broken);
        }
        if lost.is_none() {
            lost = self.statement("COMMIT").err();
        }
        if let Some(error) = lost {
            // Fails if there is no transaction, which is harmless.
            let _ = self.statement("ROLLBACK");
            self.held.clear();
            for acknowledge in acknowledgements {
                acknowledge(Err(error.clone()));
            }
            return;
        }
        self.index.apply(self.effects.drain(..));
        for acknowledge in acknowledgements {
            acknowledge(Ok(()));
        }
        self.checkpointer.after_commit(&self.db, bytes);
    }

    fn statement(&self, sql: &str) -> Result<(), StoreError> {
        Ok(self.db.prepare_cached(sql)?.execute([]).map(|_| ())?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::schema::open_writer;

    /// SQLite rolls back by itself after some errors. The writes of the group behind such an error
    /// must not commit on their own, because they are acknowledged as failed.
    #[test]
    fn nothing_of_a_group_is_stored_after_sqlite_rolled_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let db = open_writer(&path, false).expect("a file");
        let clock = Clock::of(&db).expect("a clock");
        let index = Arc::new(Index::load(&db).expect("an index"));
        let checkpointer = Checkpointer::start(&path, false).expect("a thread");
        let writer = Writer::start(db, index, checkpointer, clock).expect("a thread");
        let insert = |model: &'static str| {
            move |writing: &mut Writing<'_>| {
                let sql = "INSERT INTO models VALUES (?1, 'e', 1)";
                Ok(writing.db.execute(sql, [model])?)
            }
        };
        // The first write is a group of its own, and runs until the others are queued, so that
        // they are the next group.
        let (open, gate) = channel::<()>();
        let (begin, begun) = channel::<()>();
        let first = writer.send(move |writing| {
            let _ = begin.send(());
            let _ = gate.recv();
            insert("kept")(writing)
        });
        begun.recv().expect("the first write runs");
        let rest = [
            writer.send(insert("before")),
            writer.send(|writing| {
                writing.db.execute_batch("ROLLBACK")?;
                Err(StoreError::Database("an error that rolls back".into()))
            }),
            writer.send(insert("after")),
        ];
        drop(open);
        first.blocking_recv().expect("an answer").expect("a write");
        for failed in rest {
            let error = failed.blocking_recv().expect("an answer").expect_err("an error");
            assert!(error.to_string().contains("rolls back"), "{error}");
        }
        writer.send(insert("later")).blocking_recv().expect("an answer").expect("a write");
        writer.close();
        let db = open_writer(&path, false).expect("a file");
        let mut names = db.prepare("SELECT model FROM models ORDER BY 1").expect("a table");
        let names = names.query_map([], |row| row.get(0)).expect("rows");
        let names: Vec<String> = names.map(|name| name.expect("a text")).collect();
        assert_eq!(names, ["kept", "later"]);
    }
}
