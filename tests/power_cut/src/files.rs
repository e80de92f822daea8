//! What is on the disk and what was only written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_core::SeedTree;

/// Disks write sectors whole.
const SECTOR: usize = 512;

/// The watched files of a folder.
#[derive(Debug, Default)]
pub struct Files {
    all: BTreeMap<PathBuf, Contents>,
    /// Bytes by which files may still grow.
    pub(crate) space: Option<u64>,
    pub(crate) changes: u64,
}

#[derive(Debug, Default)]
struct Contents {
    /// Synced bytes; `None` until the first sync, before which the file may not exist.
    synced: Option<Vec<u8>>,
    /// Changes since the last sync, in order.
    unsynced: Vec<Change>,
    /// Deleted, but the deletion may not be on disk.
    deleted: bool,
    /// A log that was opened and not synced since: SQLite syncs its folder with it.
    syncs_folder: bool,
    size: u64,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Files {
    /// The file is opened. One that existed before the folder was watched counts as synced.
    pub(crate) fn opened(&mut self, path: &Path) {
        let file = self.all.entry(path.to_owned()).or_insert_with(|| {
            // SQLite has just created it if it is empty.
            let bytes = fs::read(path).unwrap_or_default();
            let size = bytes.len() as u64;
            Contents { synced: (size > 0).then_some(bytes), size, ..Contents::default() }
        });
        if file.deleted {
            // Created again: the old contents may reappear.
            file.deleted = false;
            file.unsynced.push(Change::Truncate(0));
            file.size = 0;
        }
        let name = path.to_string_lossy();
        file.syncs_folder = name.ends_with("-wal") || name.ends_with("-journal");
    }

    /// The number of bytes of a write for which there is space.
    pub(crate) fn fitting(&self, path: &Path, offset: u64, length: usize) -> usize {
        let size = self.all.get(path).map_or(0, |file| file.size);
        let growth = (offset + length as u64).saturating_sub(size);
        let lacking = self.space.map_or(0, |space| growth.saturating_sub(space));
        length.saturating_sub(usize::try_from(lacking).unwrap_or(usize::MAX))
    }

    pub(crate) fn written(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        let Some(file) = self.all.get_mut(path) else { return };
        let end = offset + bytes.len() as u64;
        if let Some(space) = &mut self.space {
            *space = space.saturating_sub(end.saturating_sub(file.size));
        }
        file.size = file.size.max(end);
        let offset = usize::try_from(offset).expect("an offset in memory");
        file.unsynced.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn truncated(&mut self, path: &Path, size: u64) {
        let Some(file) = self.all.get_mut(path) else { return };
        file.size = size;
        file.unsynced.push(Change::Truncate(usize::try_from(size).expect("a size in memory")));
    }

    /// A sync also makes the name of a new file durable, as the file systems of Linux do.
    pub(crate) fn synced(&mut self, path: &Path) {
        let Some(file) = self.all.get_mut(path) else { return };
        let synced = file.synced.get_or_insert_default();
        for change in file.unsynced.drain(..) {
            change.apply(synced);
        }
        if std::mem::take(&mut file.syncs_folder) {
            self.all.retain(|_, file| !file.deleted);
            for file in self.all.values_mut() {
                file.synced.get_or_insert_default();
            }
        }
    }

    pub(crate) fn deleted(&mut self, path: &Path, synced: bool) {
        if synced {
            self.all.remove(path);
        } else if let Some(file) = self.all.get_mut(path) {
            file.deleted = true;
        }
    }

    /// Writes the files into `to`, as a power cut at this moment could leave them: with all synced
    /// changes and a part of the others, which `seed` chooses.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn cut(&self, to: &Path, seed: SeedTree) {
        for (index, (path, file)) in self.all.iter().enumerate() {
            let seed = seed.index(index as u64);
            let gone = file.deleted || file.synced.is_none();
            if gone && seed.child("gone").uniform() < 0.5 {
                continue;
            }
            let mut bytes = file.synced.clone().unwrap_or_default();
            // None of the changes, all of them, or some.
            let share = [0.0, 0.5, 1.0][(seed.child("share").uniform() * 3.0) as usize];
            for (index, change) in file.unsynced.iter().enumerate() {
                let seed = seed.child("change").index(index as u64);
                if seed.uniform() < share {
                    change.torn(seed.child("torn")).apply(&mut bytes);
                }
            }
            let name = path.file_name().expect("a file has a name");
            fs::write(to.join(name), bytes).expect("a file after the power cut");
        }
    }
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Truncate(size) => contents.truncate(*size),
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
        }
    }

    /// One write in eight reaches the disk only up to some sector.
    fn torn(&self, seed: SeedTree) -> Self {
        match self {
            Self::Truncate(size) => Self::Truncate(*size),
            Self::Write { offset, bytes } => {
                let whole = if seed.uniform() < 0.125 {
                    let sectors = seed.child("sectors").uniform() * bytes.len() as f64;
                    sectors as usize / SECTOR * SECTOR
                } else {
                    bytes.len()
                };
                Self::Write { offset: *offset, bytes: bytes[..whole].to_vec() }
            }
        }
    }
}
