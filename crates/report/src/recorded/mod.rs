//! Recorded folders: the compact form of runs, small enough for a repository.
//!
//! ```text
//! README.md            written by hand, or a generated draft with the command
//! NAME.png             the images that the README shows
//! config.toml          the configuration; one file per experiment if there are several
//! sweep.toml base.toml instead of config.toml, for a sweep
//! table.md             for a sweep: sweep.md, variants.csv, cells.csv, tuning.csv
//! provenance.json      one per revision, with the differences between runs
//! runs.tar.zst         metrics, evaluations, timings, sample rollouts of every run
//! ```
//!
//! The rest of a report is derived from the archive by `leyden report FOLDER`. A recorded folder
//! is accepted wherever a run folder is: `FOLDER` means all runs in it, and `FOLDER/RUN` one, as
//! if the run were stored there.

mod archive;
mod differences;
mod write;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use leyden_sweep::SweepFolder;

pub use archive::ARCHIVE;
pub(crate) use archive::{SAMPLES, Unpacked, unpack};
pub use write::{record_runs, record_sweep};

use crate::error::ReportError;
use crate::run::{Run, folder_name, load_folder};
use archive::{ORDER, RUN_FILES};

/// Whether a folder is a recorded one.
pub fn is_recorded(folder: &Path) -> bool {
    folder.join(ARCHIVE).is_file()
}

/// Whether a folder is a sweep folder or the recording of a sweep.
pub fn is_sweep(folder: &Path) -> bool {
    SweepFolder::is_one(folder) || is_recorded(folder) && folder.join("sweep.toml").is_file()
}

/// A run folder and the path it is read from, which differ if it is inside an archive.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The folder as shown in pages and messages.
    pub shown: PathBuf,
    pub actual: PathBuf,
    /// Keeps the unpacked files alive.
    pub unpacked: Option<Rc<Unpacked>>,
}

impl Source {
    /// Reads the run.
    pub fn load(&self) -> Result<Run, ReportError> {
        let run = load_folder(&self.actual);
        let mut run = match &self.unpacked {
            Some(unpacked) => run.map_err(|error| unpacked.error(&error))?,
            None => run?,
        };
        run.folder.clone_from(&self.shown);
        Ok(run)
    }

    /// Like [`load`](Self::load), but `None` if nothing has been written yet.
    pub fn load_if_any(&self) -> Result<Option<Run>, ReportError> {
        if self.actual.join("config.toml").is_file() { self.load().map(Some) } else { Ok(None) }
    }

    /// The name of the folder.
    pub fn name(&self) -> String {
        folder_name(&self.actual)
    }
}

/// Loads the runs of the given folders, in order: a run folder is one run, a recorded folder or a
/// folder of run folders all runs in it.
///
/// # Errors
/// [`ReportError`] for a folder without a run and for a run that cannot be read.
pub fn load_all(folders: &[PathBuf]) -> Result<Vec<Run>, ReportError> {
    sources(folders)?.iter().map(Source::load).collect()
}

pub(crate) fn sources(folders: &[PathBuf]) -> Result<Vec<Source>, ReportError> {
    let mut found = Vec::new();
    for folder in folders {
        found.extend(open(folder)?);
    }
    Ok(found)
}

/// The runs that a path denotes.
fn open(path: &Path) -> Result<Vec<Source>, ReportError> {
    if is_recorded(path) {
        return inside(path, Rc::new(unpack(&path.join(ARCHIVE))?));
    }
    if !path.is_dir() {
        return Ok(vec![within_archive(path)?.ok_or_else(|| ReportError::NoFolder(path.into()))?]);
    }
    let plain = |path: PathBuf| Source { shown: path.clone(), actual: path, unpacked: None };
    if path.join("config.toml").is_file() {
        return Ok(vec![plain(path.to_owned())]);
    }
    let runs = run_folders(path)?;
    if runs.is_empty() {
        return Err(ReportError::NotARun(path.to_owned()));
    }
    Ok(runs.into_iter().map(|name| plain(path.join(name))).collect())
}

/// The runs of an unpacked archive, shown as if they were in `shown`, in the report's order.
fn inside(shown: &Path, unpacked: Rc<Unpacked>) -> Result<Vec<Source>, ReportError> {
    let root = unpacked.root();
    let mut names = run_folders(root)?;
    if let Ok(text) = fs::read_to_string(root.join(ORDER)) {
        let order: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
        let rank = |name: &String| order.iter().position(|other| other == name);
        names.sort_by_key(|name| rank(name).unwrap_or(usize::MAX));
    }
    if names.is_empty() {
        let what = "it contains no run".to_owned();
        return Err(ReportError::Archive { path: shown.join(ARCHIVE), what });
    }
    let source = |name: &String| Source {
        shown: shown.join(name),
        actual: root.join(name),
        unpacked: Some(Rc::clone(&unpacked)),
    };
    Ok(names.iter().map(source).collect())
}

/// The run that a path names inside a recorded folder; `None` if the path is not inside one.
pub(crate) fn within_archive(path: &Path) -> Result<Option<Source>, ReportError> {
    // In a sweep the path contains `cells`.
    let Some(folder) = path.ancestors().skip(1).take(2).find(|folder| is_recorded(folder)) else {
        return Ok(None);
    };
    let Ok(inner) = path.strip_prefix(folder) else { return Ok(None) };
    let unpacked = Rc::new(unpack(&folder.join(ARCHIVE))?);
    let actual = unpacked.root().join(inner);
    let plain = inner.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain || !actual.join("config.toml").is_file() {
        return Err(ReportError::NotRecorded {
            archive: folder.join(ARCHIVE),
            run: inner.display().to_string(),
            found: run_folders(unpacked.root())?,
        });
    }
    Ok(Some(Source { shown: path.to_owned(), actual, unpacked: Some(unpacked) }))
}

/// The names of the run folders in a folder, sorted.
fn run_folders(folder: &Path) -> Result<Vec<String>, ReportError> {
    let read = |source| ReportError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.path().join("config.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a run folder contains only files that an archive keeps.
fn is_kept_whole(run: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(run) else { return false };
    entries.all(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            entry.path().is_file() && RUN_FILES.iter().any(|kept| *kept == name)
        })
    })
}
