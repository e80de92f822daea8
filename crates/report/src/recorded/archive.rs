//! `runs.tar.zst`: the files of several runs in one archive.
//!
//! The metrics of an experiment's runs share much content, item ids above all, so they are
//! compressed together with a window that spans them. Equal files give equal bytes: names are
//! sorted and neither times nor owners are stored.
//!
//! Archives are untrusted. They are unpacked into a temporary folder, and only files with the
//! names of a recording are accepted: links, paths that leave the folder and oversized files are
//! rejected with an error that names them, before they are written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::ReportError;

/// File name of the archive.
pub const ARCHIVE: &str = "runs.tar.zst";

/// The files of a run that are kept; rollouts and checkpoints are too large.
pub(super) const RUN_FILES: [&str; 8] = [
    "config.toml",
    "provenance.json",
    "metrics.jsonl",
    "timings.jsonl",
    // Written by evaluations.
    "predictions.jsonl",
    "summary.txt",
    // Sample rollouts for the page.
    SAMPLES,
    "finished",
];

/// The sample rollouts for the page, the only part of `rollouts.sqlite` that is kept.
pub(crate) const SAMPLES: &str = "samples.json";

/// The order of the runs in the report.
pub(super) const ORDER: &str = "order.json";

/// The files of a sweep in addition to its runs.
pub(super) const SWEEP_FILES: [&str; 4] =
    ["sweep.toml", "base.toml", leyden_sweep::CELLS, leyden_sweep::TUNING];

/// Higher levels than 19 save another 1 % and take twice the time.
const LEVEL: i32 = 19;
/// Base-2 logarithm of the window in bytes when writing, and the maximum when reading.
const WINDOW_LOG: u32 = 27;
/// Upper bounds of an unpacked recording.
const MOST_BYTES: u64 = 1 << 30;
const MOST_FILES: usize = 50_000;

/// Contents of an archive by name: `RUN/FILE` and [`ORDER`], or a sweep's folder.
pub(super) type Entries = BTreeMap<String, Vec<u8>>;

/// Packs the files into an archive.
///
/// # Errors
/// A name that [`unpack`] would reject, or a failure of the compressor.
pub(super) fn pack(entries: &Entries) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        if !is_kept(name) {
            return Err(io::Error::other(format!("`{name}` is not the name of a recorded file")));
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice())?;
    }
    let tar = tar.into_inner()?;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    encoder.long_distance_matching(true)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(tar.len() as u64))?;
    io::copy(&mut tar.as_slice(), &mut encoder)?;
    encoder.finish()
}

/// An unpacked archive; its files are deleted on drop.
#[derive(Debug)]
pub(crate) struct Unpacked {
    archive: PathBuf,
    folder: TempDir,
}

impl Unpacked {
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces paths of unpacked files in a message by paths in the archive.
    pub fn words(&self, text: &str) -> String {
        let root = self.root().display().to_string();
        text.replace(&format!("{root}/"), &format!("{}: ", self.archive.display()))
            .replace(&root, &self.archive.display().to_string())
    }

    /// Converts an error about the unpacked files into one about the archive.
    pub fn error(&self, error: &ReportError) -> ReportError {
        ReportError::InArchive(self.words(&error.to_string()))
    }
}

/// Unpacks an archive into a temporary folder.
///
/// # Errors
/// [`ReportError::Archive`] if the archive is damaged, truncated or contains other files than
/// those of a recording; failures of the file system.
pub(crate) fn unpack(archive: &Path) -> Result<Unpacked, ReportError> {
    let read = |source| ReportError::Read { path: archive.to_owned(), source };
    let file = File::open(archive).map_err(read)?;
    let folder = tempfile::tempdir().map_err(read)?;
    unpack_into(file, folder.path())
        .map_err(|what| ReportError::Archive { path: archive.to_owned(), what })?;
    Ok(Unpacked { archive: archive.to_owned(), folder })
}

fn unpack_into(compressed: impl Read, folder: &Path) -> Result<(), String> {
    let damaged = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is truncated".to_owned(),
        _ => error.to_string(),
    };
    let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(damaged)?;
    decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
    let mut tar = tar::Archive::new(Bounded { inner: decoder, left: MOST_BYTES });
    for (index, entry) in tar.entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if index == MOST_FILES {
            return Err(format!("it has more than {MOST_FILES} files"));
        }
        if !entry.header().entry_type().is_file() {
            return Err(format!("`{name}` is not a plain file"));
        }
        if !is_kept(&name) {
            return Err(format!("`{name}` is not the name of a recorded file"));
        }
        let size = entry.size();
        if size > MOST_BYTES {
            return Err(format!("`{name}` claims to have {size} bytes"));
        }
        let path = folder.join(&name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
        let mut out = File::create_new(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!("`{name}` occurs twice"),
            _ => format!("{}: {error}", path.display()),
        })?;
        if io::copy(&mut entry, &mut out).map_err(damaged)? != size {
            return Err(format!("`{name}` is truncated"));
        }
    }
    // The rest is padding; reading it also verifies the checksum.
    let mut rest = tar.into_inner();
    let mut buffer = [0; 4096];
    loop {
        match rest.read(&mut buffer).map_err(damaged)? {
            0 => return Ok(()),
            n if buffer[..n].iter().any(|byte| *byte != 0) => {
                return Err("there is data after its last file".to_owned());
            }
            _ => {}
        }
    }
}

/// Whether a recording may contain a file of this name.
fn is_kept(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 200
            && !part.starts_with('.')
            && !part.contains(|letter: char| letter == '\\' || letter.is_control())
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [file] => *file == ORDER || SWEEP_FILES.contains(file),
        [leyden_sweep::CHOICES, choice] => plain(choice) && choice.ends_with(".json"),
        ["status", failed] => plain(failed) && failed.ends_with(".failed"),
        [run, file] | ["cells", run, file] => plain(run) && RUN_FILES.contains(file),
        _ => false,
    }
}

/// A reader that fails if its input exceeds a bound.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {} MiB", MOST_BYTES >> 20))
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Entries {
        let line = "{\"kind\":\"eval\",\"step\":0}\n".repeat(2000);
        Entries::from([
            ("a run/metrics.jsonl".to_owned(), line.into_bytes()),
            ("a run/finished".to_owned(), Vec::new()),
            ("b/config.toml".to_owned(), b"name = \"b\"\n".to_vec()),
            (format!("{}/config.toml", "n".repeat(150)), b"x = 1\n".to_vec()),
        ])
    }

    fn unpacked(bytes: &[u8]) -> Result<Entries, String> {
        let folder = tempfile::tempdir().unwrap();
        unpack_into(bytes, folder.path())?;
        let mut found = Entries::new();
        for run in fs::read_dir(folder.path()).unwrap() {
            let run = run.unwrap();
            for file in fs::read_dir(run.path()).unwrap() {
                let file = file.unwrap().path();
                let name = file.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(file).unwrap());
            }
        }
        Ok(found)
    }

    /// An archive of one entry that [`pack`] would not write.
    fn hostile(change: impl FnOnce(&mut tar::Header), bytes: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_path("b/config.toml").unwrap();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        change(&mut header);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.extend(bytes);
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        zstd::encode_all(tar.as_slice(), 1).unwrap()
    }

    /// Sets names that `Header::set_path` rejects.
    fn named(name: &str) -> impl FnOnce(&mut tar::Header) + '_ {
        move |header| {
            let field = &mut header.as_old_mut().name;
            field.fill(0);
            field[..name.len()].copy_from_slice(name.as_bytes());
        }
    }

    #[test]
    fn equal_files_give_equal_bytes_and_round_trip() {
        let bytes = pack(&entries()).unwrap();
        assert_eq!(bytes, pack(&entries()).unwrap());
        assert_eq!(unpacked(&bytes).unwrap(), entries());
        assert!(bytes.len() < 1000, "{} bytes", bytes.len());
        let other = Entries::from([("../x".to_owned(), Vec::new())]);
        assert!(pack(&other).unwrap_err().to_string().contains("`../x`"));
    }

    #[test]
    fn an_archive_damaged_anywhere_is_rejected() {
        let bytes = pack(&entries()).unwrap();
        for end in [0, 3, bytes.len() / 2, bytes.len() - 5, bytes.len() - 1] {
            let what = unpacked(&bytes[..end]).unwrap_err();
            assert!(!what.is_empty(), "cut after {end}");
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            // An unused flag in the frame header may change.
            if let Ok(found) = unpacked(&changed) {
                assert_eq!(found, entries(), "byte {at}");
            }
        }
        assert!(unpacked(b"not an archive at all").is_err());
        let garbage = zstd::encode_all(&[7u8; 2000][..], 1).unwrap();
        assert!(unpacked(&garbage).is_err());
    }

    #[test]
    fn foreign_files_are_rejected_by_name() {
        for name in [
            "../config.toml",
            "/etc/config.toml",
            "a/../../config.toml",
            "./config.toml",
            "a/b/config.toml",
            "cells/../config.toml",
            ".ssh/config.toml",
            "a\\b/config.toml",
            "a/rollouts.sqlite",
            "run.sh",
        ] {
            let what = unpacked(&hostile(named(name), b"x")).unwrap_err();
            assert!(what.contains(&format!("`{name}` is not the name")), "{name}: {what}");
        }
        for kind in [
            tar::EntryType::Symlink,
            tar::EntryType::Link,
            tar::EntryType::Directory,
            tar::EntryType::Fifo,
            tar::EntryType::Char,
        ] {
            let link = |header: &mut tar::Header| {
                header.set_entry_type(kind);
                header.set_link_name("/etc/passwd").unwrap();
            };
            let what = unpacked(&hostile(link, b"")).unwrap_err();
            assert!(what.contains("is not a plain file"), "{what}");
        }
        let huge = unpacked(&hostile(|header| header.set_size(1 << 50), b"x")).unwrap_err();
        assert!(huge.contains("claims to have"), "{huge}");
        let short = unpacked(&hostile(|header| header.set_size(100_000), b"x")).unwrap_err();
        assert!(short.contains("truncated"), "{short}");
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_bound() {
        let mut bounded = Bounded { inner: io::repeat(0), left: 10_000 };
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err().to_string();
        assert!(error.contains("1024 MiB"), "{error}");
    }

    #[test]
    fn a_duplicate_name_is_rejected() {
        let mut tar = tar::Builder::new(Vec::new());
        for _ in 0..2 {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            tar.append_data(&mut header, "b/config.toml", &b"x"[..]).unwrap();
        }
        let bytes = zstd::encode_all(tar.into_inner().unwrap().as_slice(), 1).unwrap();
        assert_eq!(unpacked(&bytes).unwrap_err(), "`b/config.toml` occurs twice");
    }
}
