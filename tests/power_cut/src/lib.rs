//! For tests: power cuts and full disks under SQLite.
//!
//! A [`Disk`] watches a folder. From then on it knows, for every SQLite file in it, what was synced
//! to disk and what was only written, and [`Files::cut`] makes a copy of the folder as a power cut
//! could leave it: synced contents are there, and of the later writes an arbitrary part, whole or
//! torn, because a disk may reorder them. The folder can also run out of space.
//!
//! The code under test is unchanged: a layer above SQLite's own file system functions becomes the
//! process's default. Files that are not SQLite's, and the shared memory of a write-ahead log
//! (which SQLite rebuilds), are not watched.

mod files;
mod vfs;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use files::Files;

/// Called after every change of a watched file, with the number of changes so far.
type Hook = Box<dyn FnMut(u64, &Files) + Send>;

/// A watched folder, until this is dropped.
pub struct Disk {
    watched: Arc<Watched>,
}

struct Watched {
    folder: PathBuf,
    files: Mutex<Files>,
    hook: Mutex<Option<Hook>>,
}

/// All watched folders of this process.
static ALL: Mutex<Vec<Arc<Watched>>> = Mutex::new(Vec::new());

impl Disk {
    /// Watches the SQLite files of `folder`. Its present contents count as synced. Databases that
    /// are open already are not watched.
    ///
    /// # Panics
    /// If the folder does not exist, or SQLite refuses the layer.
    pub fn watch(folder: &Path) -> Self {
        vfs::register();
        let folder = fs::canonicalize(folder).expect("a folder to watch");
        let watched = Arc::new(Watched { folder, files: Mutex::default(), hook: Mutex::default() });
        locked(&ALL).push(watched.clone());
        Self { watched }
    }

    /// Calls `hook` after every write, truncation, sync and deletion, on the thread that does it,
    /// which waits. It gets the number of changes so far.
    pub fn on_change(&self, hook: impl FnMut(u64, &Files) + Send + 'static) {
        *locked(&self.watched.hook) = Some(Box::new(hook));
    }

    /// Limits the bytes by which files may still grow; `None` is unlimited.
    pub fn set_space(&self, bytes: Option<u64>) {
        locked(&self.watched.files).space = bytes;
    }

    /// Copies the watched files into `to`, as after a power cut: see [`Files::cut`].
    pub fn cut(&self, to: &Path, seed: leyden_core::SeedTree) {
        locked(&self.watched.files).cut(to, seed);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        locked(&ALL).retain(|other| !Arc::ptr_eq(other, &self.watched));
    }
}

impl Watched {
    /// The watched folder of a file.
    fn of(path: &Path) -> Option<Arc<Self>> {
        locked(&ALL).iter().find(|watched| path.starts_with(&watched.folder)).cloned()
    }

    /// Does something to the files, then calls the hook.
    fn change<T>(&self, change: impl FnOnce(&mut Files) -> T) -> T {
        let mut files = locked(&self.files);
        let done = change(&mut files);
        files.changes += 1;
        if let Some(hook) = locked(&self.hook).as_mut() {
            hook(files.changes, &files);
        }
        done
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
