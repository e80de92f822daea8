//! Durable storage of rollouts, calls and events in SQLite: acknowledged writes survive a power
//! failure.
//!
//! One thread writes, in groups that share a sync of the WAL ([`writer`]); a call returns once its
//! group is on disk. Reads use their own connections and never wait for the writer. The columns
//! needed by every request are also kept in memory ([`index`]). The functions of [`read`] serve
//! `leyden rollouts`, also on the file of a running server.

mod checkpoint;
mod clock;
mod error;
mod index;
mod jobs;
mod memory;
mod packed;
pub mod read;
mod readers;
mod row;
mod schema;
mod types;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use leyden_core::{FileLock, take_lock};

pub use error::StoreError;
pub use index::Brief;
pub use read::{CallRow, Filter, Reading, RecordedCall, Repeated};
pub use schema::SCHEMA;
pub use types::*;
pub use writer::WriterCounts;

use clock::Clock;
use index::Index;
use readers::Readers;
use writer::{Writer, Writing};

/// Name of the database within the store's folder.
pub const FILE: &str = "rollouts.sqlite";

/// Size limits and retention of a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Maximum bytes per event.
    pub max_event_bytes: usize,
    /// Maximum bytes of all events of one rollout.
    pub max_rollout_bytes: u64,
    /// Maximum conversations kept for `previous_response_id`.
    pub max_responses: usize,
    /// Number of latest rollouts to keep; unfinished ones are never deleted.
    pub keep_last: Option<usize>,
    /// Days for which finished rollouts are kept.
    pub keep_days: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_event_bytes: 16 << 20,
            max_rollout_bytes: 1 << 30,
            max_responses: 10_000,
            keep_last: None,
            keep_days: None,
        }
    }
}

/// An open store. Clones share it; it closes with the last clone, or by [`Store::close`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    readers: Arc<Readers>,
    index: Arc<Index>,
    clock: Clock,
    limits: Arc<Limits>,
    /// Lock file, held while open, so that no second server writes to the same folder.
    lock: Mutex<Option<File>>,
    /// The temporary folder, removed with the store.
    _folder: Option<tempfile::TempDir>,
}

impl Store {
    /// Opens the store in `folder`, or creates it there. Blocks.
    ///
    /// # Errors
    /// If the file is in use by another process, corrupt, another program's database, of another
    /// version, or not writable.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, StoreError> {
        Self::start(folder, limits, true, None)
    }

    /// A non-durable store in a temporary folder that is deleted with it.
    ///
    /// # Errors
    /// If no temporary folder can be created.
    pub fn temporary(limits: Limits) -> Result<Self, StoreError> {
        let folder = tempfile::tempdir().map_err(|error| about(Path::new("/tmp"), &error))?;
        let path = folder.path().to_owned();
        Self::start(&path, limits, false, Some(folder))
    }

    fn start(
        folder: &Path,
        limits: Limits,
        durable: bool,
        temporary: Option<tempfile::TempDir>,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|error| about(folder, &error))?;
        let lock = lock(folder)?;
        let path = folder.join(FILE);
        let db = schema::open_writer(&path, durable)?;
        let index = Index::load(&db).map_err(|error| schema::file_error(&path, &error))?;
        let clock = Clock::of(&db).map_err(|error| schema::file_error(&path, &error))?;
        // Sync the folder, so that the file's name is durable too.
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(|error| about(folder, &error))?;
        let index = Arc::new(index);
        let checkpointer = checkpoint::Checkpointer::start(&path, durable)?;
        let writer = Writer::start(db, index.clone(), checkpointer, clock).map_err(|error| {
            StoreError::Database(format!("cannot start the writer thread: {error}"))
        })?;
        let readers = Arc::new(Readers::new(path));
        let limits = Arc::new(limits);
        let lock = Mutex::new(Some(lock));
        let inner = Inner { writer, readers, index, clock, limits, lock, _folder: temporary };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits until all queued writes are done and closes the file. Blocks. Later operations of
    /// other clones fail with [`StoreError::Closed`].
    pub fn close(&self) {
        self.inner.writer.close();
        self.inner.readers.close();
        self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// The store's time in seconds since 1970, as in its timestamps. It never jumps, also when the
    /// system's clock is set.
    pub fn now(&self) -> f64 {
        self.inner.clock.now()
    }

    /// The writer's counters, for metrics.
    pub fn counts(&self) -> &WriterCounts {
        &self.inner.writer.counts
    }

    /// Rollouts by state, in the order of [`RolloutState::ALL`].
    pub fn states(&self) -> [usize; 4] {
        self.inner.index.counts()
    }

    /// The summary of a rollout, without a query.
    pub fn brief(&self, id: &str) -> Option<Brief> {
        self.inner.index.get(id)
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.inner.writer.send(write).await.unwrap_or(Err(StoreError::Closed))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let readers = self.inner.readers.clone();
        tokio::task::spawn_blocking(move || readers.with(read))
            .await
            .unwrap_or(Err(StoreError::Closed))
    }

    /// Creates rollouts; returns for each whether its id existed, in which case nothing changed.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Closed`], as for every write.
    pub async fn create(
        &self,
        all: Vec<NewRollout>,
    ) -> Result<Vec<(StoredRollout, bool)>, StoreError> {
        self.write(move |writing| jobs::create(writing, all)).await
    }

    /// Changes the status of a rollout.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`], [`StoreError::Transition`].
    pub async fn patch(&self, id: &str, patch: StatusPatch) -> Result<StoredRollout, StoreError> {
        let id = id.to_owned();
        self.write(move |writing| jobs::patch(writing, &id, patch)).await
    }

    /// Like [`Self::patch`], but neither waits nor reports errors.
    pub fn patch_later(&self, id: &str, patch: StatusPatch) {
        let id = id.to_owned();
        drop(self.inner.writer.send(move |writing| jobs::patch(writing, &id, patch)));
    }

    /// Deletes a rollout with its events. One that does not exist is no error.
    pub async fn delete(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |writing| jobs::delete(writing, &id)).await
    }

    /// Appends an event; durable on return.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`], [`StoreError::EventTooLarge`],
    /// [`StoreError::RolloutTooLarge`].
    pub async fn append(&self, event: NewEvent) -> Result<Appended, StoreError> {
        let limits = self.inner.limits.clone();
        let bytes = jobs::size(&event);
        if bytes > limits.max_event_bytes {
            return Err(StoreError::EventTooLarge { bytes, limit: limits.max_event_bytes });
        }
        let event = jobs::Ready::new(event);
        self.write(move |writing| jobs::append(writing, &limits, &event)).await
    }

    /// Begins another attempt of an unfinished rollout and returns its id. With `requeue`, the
    /// next claim begins it, and the id is empty.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`], [`StoreError::Transition`].
    pub async fn next_attempt(&self, id: &str, requeue: bool) -> Result<String, StoreError> {
        let id = id.to_owned();
        self.write(move |writing| jobs::next_attempt(writing, &id, requeue)).await
    }

    /// Leases at most `count` queued rollouts to `worker`, oldest first.
    pub async fn claim(
        &self,
        worker: &str,
        count: usize,
        lease_seconds: f64,
    ) -> Result<Vec<Claim>, StoreError> {
        let worker = worker.to_owned();
        self.write(move |writing| jobs::claim(writing, &worker, count, lease_seconds)).await
    }

    /// Renews a lease; returns its new expiry in seconds since 1970 ([`Self::now`]).
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`], [`StoreError::NotLeased`].
    pub async fn heartbeat(
        &self,
        worker: &str,
        rollout_id: &str,
        attempt_id: &str,
        lease_seconds: f64,
    ) -> Result<f64, StoreError> {
        let (worker, id, attempt) =
            (worker.to_owned(), rollout_id.to_owned(), attempt_id.to_owned());
        self.write(move |writing| jobs::heartbeat(writing, &worker, &id, &attempt, lease_seconds))
            .await
    }

    /// Releases a lease. A hosted rollout then waits for its trainer, any other one ends as
    /// specified by `end`.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`], [`StoreError::NotLeased`], [`StoreError::Transition`].
    pub async fn end_lease(
        &self,
        worker: &str,
        rollout_id: &str,
        attempt_id: &str,
        end: StatusPatch,
    ) -> Result<(), StoreError> {
        let (worker, id, attempt) =
            (worker.to_owned(), rollout_id.to_owned(), attempt_id.to_owned());
        self.write(move |writing| jobs::end_lease(writing, &worker, &id, &attempt, end)).await
    }

    /// Requeues the rollouts whose lease expired.
    pub async fn requeue_expired(&self) -> Result<Vec<Requeued>, StoreError> {
        self.write(jobs::requeue_expired).await
    }

    /// Fails the rollouts of trainers of earlier processes; returns how many.
    pub async fn fail_orphans(&self) -> Result<usize, StoreError> {
        self.write(jobs::fail_orphans).await
    }

    /// Deletes rollouts beyond the retention limits, in small groups so that other writes do not
    /// wait long; returns the number deleted.
    pub async fn expire(&self) -> Result<usize, StoreError> {
        const GROUP: usize = 64;
        let (last, days) = (self.inner.limits.keep_last, self.inner.limits.keep_days);
        let mut deleted = 0;
        while last.is_some() || days.is_some() {
            let seconds = days.map(|days| days * 86_400.0);
            let now =
                self.write(move |writing| jobs::expire(writing, last, seconds, GROUP)).await?;
            deleted += now;
            if now < GROUP {
                break;
            }
        }
        Ok(deleted)
    }

    /// Registers model servers.
    pub async fn put_models(&self, models: Vec<ModelServer>) -> Result<(), StoreError> {
        self.write(move |writing| jobs::put_models(writing, &models)).await
    }

    /// Deletes all model servers.
    pub async fn clear_models(&self) -> Result<(), StoreError> {
        self.write(jobs::clear_models).await
    }

    /// The registered model servers, by model and endpoint.
    pub async fn models(&self) -> Result<Vec<ModelServer>, StoreError> {
        self.read(read::models).await
    }

    /// The rollout with this id.
    pub async fn rollout(&self, id: &str) -> Result<Option<StoredRollout>, StoreError> {
        let id = id.to_owned();
        self.read(move |db| read::rollout(db, &id)).await
    }

    /// The rollouts that match `filter`, oldest first.
    pub async fn rollouts(&self, filter: Filter) -> Result<Vec<StoredRollout>, StoreError> {
        self.read(move |db| read::rollouts(db, &filter)).await
    }

    /// A page of the completion log: the next `limit` entries from position `after`.
    pub async fn terminal(&self, after: u64, limit: u64) -> Result<TerminalPage, StoreError> {
        self.read(move |db| read::terminal(db, after, limit)).await
    }

    /// The attempts of a rollout that have events, in order of their first event.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`].
    pub async fn attempts(&self, id: &str) -> Result<Vec<String>, StoreError> {
        let id = id.to_owned();
        self.read(move |db| read::attempts(db, &id)).await
    }

    /// Events of the current attempt, of one type or all.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`].
    pub async fn events(
        &self,
        id: &str,
        event_type: Option<&str>,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let (id, event_type) = (id.to_owned(), event_type.map(str::to_owned));
        self.read(move |db| read::events(db, &id, event_type.as_deref())).await
    }

    /// The answers of the current attempt.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`].
    pub async fn calls(&self, id: &str) -> Result<Vec<CallRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |db| read::calls(db, &id)).await
    }

    /// Recorded calls that a retry may refer to, oldest first.
    ///
    /// # Errors
    /// [`StoreError::UnknownRollout`].
    pub async fn recorded(
        &self,
        id: &str,
        attempt: &str,
        repeated: Repeated,
    ) -> Result<Vec<RecordedCall>, StoreError> {
        let (id, attempt) = (id.to_owned(), attempt.to_owned());
        self.read(move |db| read::recorded(db, &id, &attempt, &repeated)).await
    }
}

/// 128 random bits from the operating system, in hexadecimal.
pub fn random_id() -> String {
    let mut bytes = [0; 16];
    // Linux's generator does not fail once the system is up.
    getrandom::fill(&mut bytes)
        .unwrap_or_else(|error| panic!("the system's random number generator failed: {error}"));
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Locks the folder for this process.
fn lock(folder: &Path) -> Result<File, StoreError> {
    match take_lock(&folder.join("lock")).map_err(|error| about(folder, &error))? {
        FileLock::Taken(file) => Ok(file),
        FileLock::Held(by) => Err(StoreError::File {
            path: folder.to_owned(),
            what: format!(
                "another server is using this store: {by}; stop it, or choose another folder"
            ),
        }),
    }
}

fn about(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::File { path: path.to_owned(), what: error.to_string() }
}
