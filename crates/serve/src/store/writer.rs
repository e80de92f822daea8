//! The one thread that writes, and its group commits.
//!
//! Writes that arrive while the last group is on its way to the disk form the next group: one
//! transaction, one sync, then every writer of the group is told. So the cost of a sync is
//! shared by all who wait for it, and none waits for a timer.

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

/// Most writes of one group; bounds how long the first of them waits for the last.
const GROUP: usize = 512;

/// What a write sees.
pub(super) struct Writing<'a> {
    pub(super) db: &'a Connection,
    /// Changes of the index, made when the group is durable.
    pub(super) effects: &'a mut Vec<Effect>,
    /// Seconds since 1970.
    pub(super) now: f64,
    /// Bytes of the events of rollouts that were written to, by their rows.
    pub(super) held: &'a mut HashMap<i64, u64>,
    /// Bytes of text and blobs written, by which checkpoints are scheduled.
    pub(super) bytes: &'a mut usize,
}

/// Tells the caller how its write ended, once the group is durable or lost.
type Acknowledge = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// One write: does its statements and returns its acknowledgement, and whether the group is
/// beyond rescue because a statement failed.
type Job = Box<dyn FnOnce(&mut Writing<'_>) -> (Acknowledge, Option<StoreError>) + Send>;

/// Counts of the writer, for metrics.
#[derive(Debug, Default)]
pub struct WriterCounts {
    pub groups: AtomicU64,
    pub writes: AtomicU64,
    /// Writes that wait for the writer now.
    pub queue: AtomicU64,
}

/// A handle to the thread. The thread ends when the handle is dropped or closed.
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

    /// Queues a write. The receiver hears of it once it is durable; dropping the receiver does
    /// not undo it.
    ///
    /// A write looks before it changes anything: an error of its own leaves the group intact,
    /// an error of SQLite's takes the whole group back.
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
                // Whoever does not listen any more has its write all the same.
                let _ = sender.send(committed.and(result));
            });
            (acknowledge, broken)
        });
        let jobs = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = jobs.as_ref() {
            self.counts.queue.fetch_add(1, Ordering::Relaxed);
            // A thread that is gone drops the job, and with it the sender: the caller hears
            // that the store is closed.
            let _ = jobs.send(job);
        }
        receiver
    }

    /// Ends the thread after everything that was queued.
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
            // Fails where there is no transaction left, which is as good.
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
