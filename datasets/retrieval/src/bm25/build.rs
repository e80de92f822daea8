//! Building an index: one pass over the corpus, bounded memory, atomic.
//!
//! The index is written into a staging folder next to its final path and renamed when it is
//! complete, so that readers never see a partial index. A killed build leaves the staging folder;
//! the next build of the same index clears it. A file lock, which the system releases when a
//! process dies, excludes concurrent builds.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use leyden_core::Passage;
use leyden_core::rows::LoadError;
use sha2::{Digest, Sha256};
use tantivy::index::{IndexSettings, SegmentId};
use tantivy::indexer::NoMergePolicy;
use tantivy::store::Compressor;
use tantivy::{Index, IndexWriter, TantivyDocument, TantivyError};

use super::manifest::{FORMAT, IndexError, Manifest};
use super::{ANALYZER, Bm25, Fields, analyzer, schema};

/// Number of passages between two progress reports.
const REPORT_EVERY: u64 = 1000;

/// Options for building an index.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions {
    /// Bytes of postings buffered in memory before they are written; at least 15 MB.
    pub memory: usize,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { memory: 256 << 20 }
    }
}

impl Bm25 {
    /// Builds the index of `passages` in `folder` and calls `progress` with the number of indexed
    /// passages every thousand. Memory stays near `options.memory` for any size of the corpus; the
    /// disk needs space for two copies of the index during the build.
    ///
    /// # Errors
    /// If `folder` is not empty, there is no passage, the corpus cannot be read to its end or the
    /// index cannot be written; no index is left behind then.
    pub fn build(
        folder: impl AsRef<Path>,
        passages: impl IntoIterator<Item = Result<Passage, LoadError>>,
        options: &BuildOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Manifest, IndexError> {
        let folder = folder.as_ref();
        let failed = |error: io::Error| BuildError::from(error).at(folder);
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(IndexError::Exists(folder.to_owned()));
        }
        let staging = Staging::open(folder)?;
        let built = Self::build_in(&staging.path, passages, options, progress);
        match built.and_then(|manifest| Ok((staging.finish(folder)?, manifest))) {
            Ok(((), manifest)) => Ok(manifest),
            Err(error) => {
                fs::remove_dir_all(&staging.path).map_err(failed)?;
                Err(error.at(folder))
            }
        }
    }

    fn build_in(
        staging: &Path,
        passages: impl IntoIterator<Item = Result<Passage, LoadError>>,
        options: &BuildOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Manifest, BuildError> {
        let index = Index::builder().schema(schema().0).settings(settings());
        let index = index.create_in_dir(staging)?;
        let mut manifest = fill(&index, passages, options, progress)?;
        drop(index);
        for entry in fs::read_dir(staging)? {
            manifest.bytes += entry?.metadata()?.len();
        }
        manifest.write(staging)?;
        Ok(manifest)
    }
}

/// An error while filling an index.
pub(super) enum BuildError {
    EmptyCorpus,
    Corpus(LoadError),
    Tantivy(TantivyError),
    Io(io::Error),
}

impl BuildError {
    /// Converts to an error about the index in `folder`.
    pub(super) fn at(self, folder: &Path) -> IndexError {
        let path = folder.to_owned();
        match self {
            Self::EmptyCorpus => IndexError::EmptyCorpus,
            Self::Corpus(error) => IndexError::Corpus(error),
            Self::Tantivy(error) => IndexError::Write { path, what: error.to_string() },
            Self::Io(error) => IndexError::Write { path, what: error.to_string() },
        }
    }
}

impl From<TantivyError> for BuildError {
    fn from(error: TantivyError) -> Self {
        Self::Tantivy(error)
    }
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Stored texts are not compressed, because each search reads a few passages at random.
pub(super) fn settings() -> IndexSettings {
    IndexSettings { docstore_compression: Compressor::None, ..IndexSettings::default() }
}

/// Adds `passages` to the empty `index` as one segment, in order. `bytes` of the manifest stays 0.
pub(super) fn fill(
    index: &Index,
    passages: impl IntoIterator<Item = Result<Passage, LoadError>>,
    options: &BuildOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Manifest, BuildError> {
    index.tokenizers().register(ANALYZER, analyzer());
    // One thread, because several would interleave the passages.
    let mut writer: IndexWriter = index.writer_with_num_threads(1, options.memory.max(15 << 20))?;
    writer.set_merge_policy(Box::new(NoMergePolicy));
    let (_, fields) = schema();
    let mut hash = Sha256::new();
    let mut count = 0;
    for passage in passages {
        let passage = passage.map_err(BuildError::Corpus)?;
        for part in [&passage.id, &passage.title, &passage.text] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        writer.add_document(document(passage, count, fields))?;
        count += 1;
        if count % REPORT_EVERY == 0 {
            progress(count);
        }
    }
    if count == 0 {
        return Err(BuildError::EmptyCorpus);
    }
    writer.commit()?;
    merge(index, &mut writer)?;
    writer.wait_merging_threads()?;
    progress(count);
    let source_sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Manifest {
        format: FORMAT,
        kind: "bm25".to_owned(),
        passages: count,
        source_sha256,
        bytes: 0,
    })
}

fn document(passage: Passage, number: u64, fields: Fields) -> TantivyDocument {
    let mut document = TantivyDocument::default();
    document.add_text(fields.body, format!("{}\n{}", passage.title, passage.text));
    document.add_text(fields.id, passage.id);
    document.add_text(fields.title, passage.title);
    document.add_text(fields.text, passage.text);
    document.add_u64(fields.number, number);
    document
}

/// Merges all segments into one, in the order of their first passages. One thread fills segments
/// one after the other, so each has a contiguous part of the corpus.
fn merge(index: &Index, writer: &mut IndexWriter) -> Result<(), TantivyError> {
    let searcher = index.reader()?.searcher();
    let mut segments = Vec::new();
    for segment in searcher.segment_readers() {
        let first = segment.fast_fields().u64("number")?.first(0);
        segments.push((first, segment.segment_id()));
    }
    segments.sort_unstable();
    if segments.len() > 1 {
        let ids: Vec<SegmentId> = segments.into_iter().map(|(_, id)| id).collect();
        writer.merge(&ids).wait()?;
        // Files of segments in use are not collected.
        drop(searcher);
        writer.garbage_collect_files().wait()?;
    }
    Ok(())
}

/// The staging folder next to the final path of an index.
struct Staging {
    path: PathBuf,
    /// Held until the build ends, successfully or not.
    _lock: File,
}

const LOCK: &str = "build.lock";

impl Staging {
    /// Creates the folder, or clears the files of a killed build.
    fn open(folder: &Path) -> Result<Self, IndexError> {
        let failed = |error: io::Error| BuildError::from(error).at(folder);
        let mut name = std::ffi::OsString::from(".");
        name.push(folder.file_name().unwrap_or_default());
        name.push(".building");
        let path = folder.with_file_name(name);
        fs::create_dir_all(&path).map_err(failed)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(IndexError::Busy(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { path, _lock: lock })
    }

    /// Moves the index to its final path.
    fn finish(&self, folder: &Path) -> io::Result<()> {
        fs::remove_file(self.path.join(LOCK))?;
        File::open(&self.path)?.sync_all()?;
        // Replaces an empty folder and fails on any other.
        fs::rename(&self.path, folder)?;
        match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tantivy lists segments by size and not by age, so without explicit order the passages of a
    /// large corpus would get wrong numbers.
    #[test]
    fn segments_are_merged_in_the_order_of_the_corpus() {
        let index = Index::builder().schema(schema().0).settings(settings());
        let index = index.create_in_ram().unwrap();
        index.tokenizers().register(ANALYZER, analyzer());
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 15 << 20).unwrap();
        writer.set_merge_policy(Box::new(NoMergePolicy));
        let mut number = 0;
        for size in [1, 3, 2, 4] {
            for _ in 0..size {
                let (id, title) = (format!("p{number}"), String::new());
                let passage = Passage { id, title, text: "same".to_owned() };
                writer.add_document(document(passage, number, schema().1)).unwrap();
                number += 1;
            }
            writer.commit().unwrap();
        }
        assert_eq!(index.searchable_segment_ids().unwrap().len(), 4);
        merge(&index, &mut writer).unwrap();
        let searcher = index.reader().unwrap().searcher();
        let [segment] = searcher.segment_readers() else { panic!("not one segment") };
        let numbers = segment.fast_fields().u64("number").unwrap();
        let found: Vec<u64> = (0..10).map(|doc| numbers.first(doc).unwrap()).collect();
        assert_eq!(found, (0..10).collect::<Vec<_>>());
    }
}
