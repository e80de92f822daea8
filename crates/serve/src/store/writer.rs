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
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::StoreError;
use super::checkpoint::Checkpointer;
use super::index::{Effect, Index};

/// Maximum writes per group; bounds how long the first of them waits for the last.
const GROUP: usize = 512;

/// The context of a write.
pub(super) struct Writing<'a> {
    pub(super) db: &'a Connection,
    /// Changes to the index, applied once the group is durable.
    pub(super) effects: &'a mut Vec<Effect>,
    /// Seconds since 1970.
    pub(super) now: f64,
    /// Event bytes of the rollouts written to, by row.
    pub(super) held: &'a mut HashMap<i64, u64>,
    /// Bytes of text and blobs written, used to schedule checkpoints.
    pub(super) bytes: &'a mut usize,
}

/// Notifies the caller of its write's result, once the group is committed or rolled back.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// One write: executes its statements and returns its acknowledgement, and the error if a failed
/// statement forces the group to roll back.
type Job = Box<dyn FnOnce(&mut Writing<'_>) -> (Acknowledge, Option<StoreError>) + Send>;

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
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let counts = Arc::new(WriterCounts::default());
        let mut group = Group {
            db,
            index,
            checkpointer,
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
            let result = write(writing);
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
        let now = seconds();
        for job in jobs.drain(..) {
            let mut writing = Writing {
                db: &self.db,
                effects: &mut self.effects,
                held: &mut self.held,
                now,
                bytes: &mut bytes,
            };
            let (acknowledge, broken) = job(&mut writing);
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

/// Seconds since 1970.
pub(crate) fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
