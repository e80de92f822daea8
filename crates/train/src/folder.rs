//! The run folder: its files, and their consistency after an interruption.
//!
//! ```text
//! config.toml        the resolved experiment
//! provenance.json    revision, versions, hashes, seeds
//! metrics.jsonl      one line per step or evaluation; nothing in it depends on the clock
//! timings.jsonl      durations of the same
//! rollouts.sqlite    every call
//! checkpoints/       step-000040/…, written to a temporary folder, synced, renamed
//! final/             the trained model as a Hugging Face folder
//! finished           exists once the run is complete
//! ```
//!
//! A resumed run restores its latest checkpoint and truncates the other files to it, so that the
//! result is byte-identical to an uninterrupted run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leyden_core::record::{Record, Timing};
use leyden_core::{FileLock, remove_unfinished_files, take_lock};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Experiment;
use crate::error::TrainError;

/// What to do after a failed write, for messages.
pub(crate) const RESUME: &str = "the run is saved up to its latest checkpoint: free some disk \
     space and run the same command again";

/// A run's folder.
pub struct RunFolder {
    root: PathBuf,
    metrics: File,
    timings: File,
    /// Held during the run: two processes in one folder would corrupt it.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder, or opens the existing one of the same experiment, which may now have more
    /// steps.
    ///
    /// # Errors
    /// A folder of another experiment, or one locked by a running process.
    pub fn open(root: &Path, experiment: &Experiment) -> Result<Self, TrainError> {
        fs::create_dir_all(root.join("checkpoints")).map_err(|e| unwritable(root, e))?;
        let lock = lock(root)?;
        for folder in [root, &root.join("final")] {
            remove_unfinished_files(folder).map_err(|e| TrainError::file(folder, e))?;
        }
        let config = root.join("config.toml");
        let text = experiment.to_toml();
        match fs::read_to_string(&config).map(|before| experiment.rewritten_alike(&before)) {
            Ok(before) if before == text => {}
            Ok(before) if is_extended(&before, &text) => {
                if experiment.train.schedule != "constant" {
                    let what = format!(
                        "this run cannot be extended: its learning rate decays until train.steps \
                         ({}); start another run with train.init_from",
                        experiment.train.schedule
                    );
                    return Err(TrainError::file(root, what));
                }
                write_atomic(&config, text.as_bytes())?;
                let finished = root.join("finished");
                match fs::remove_file(&finished) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(TrainError::file(finished, e));
                    }
                    _ => {}
                }
            }
            Ok(before) => {
                let line = before
                    .lines()
                    .zip(text.lines())
                    .find(|(old, new)| old != new)
                    .map_or_else(String::new, |(old, new)| {
                        format!(" (it has `{old}`, this one `{new}`)")
                    });
                return Err(TrainError::file(
                    root,
                    format!(
                        "this folder has a run of another configuration{line}; \
                         choose another name or remove the folder"
                    ),
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                write_atomic(&config, text.as_bytes())?;
            }
            Err(e) => return Err(TrainError::file(config, e)),
        }
        let append = |name: &str| {
            let path = root.join(name);
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(|e| TrainError::file(path, e))
        };
        let (metrics, timings) = (append("metrics.jsonl")?, append("timings.jsonl")?);
        // The names of the new files must be as durable as their contents.
        sync_folder(root)?;
        Ok(Self { root: root.to_owned(), metrics, timings, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the run is complete.
    pub fn finished(&self) -> bool {
        self.root.join("finished").exists()
    }

    /// Marks the run as complete.
    ///
    /// # Errors
    /// File system errors.
    pub fn finish(&self) -> Result<(), TrainError> {
        self.sync()?;
        write_atomic(&self.root.join("finished"), b"")
    }

    /// Writes `provenance.json`; resumes with different provenance are appended under `resumed`.
    ///
    /// # Errors
    /// File system errors.
    pub fn provenance(&self, mut now: Value) -> Result<(), TrainError> {
        let path = self.root.join("provenance.json");
        let before: Option<Value> =
            fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
        if let Some(mut first) = before {
            let earlier = first.as_object_mut().and_then(|o| o.remove("resumed"));
            if first == now {
                return Ok(());
            }
            let mut resumed = match earlier {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            };
            resumed.push(now);
            first["resumed"] = Value::Array(resumed);
            now = first;
        }
        let text = serde_json::to_string_pretty(&now).expect("provenance is plain data");
        write_atomic(&path, format!("{text}\n").as_bytes())
    }

    /// Appends one line to `metrics.jsonl`.
    ///
    /// # Errors
    /// File system errors, including a full disk.
    pub fn record(&mut self, record: &Record) -> Result<(), TrainError> {
        let line = serde_json::to_string(record).expect("a record is plain data");
        append_line(&mut self.metrics, &line).map_err(|e| self.full("metrics.jsonl", e))
    }

    /// Appends one line to `timings.jsonl`.
    ///
    /// # Errors
    /// File system errors.
    pub fn timing(&mut self, timing: &Timing) -> Result<(), TrainError> {
        let line = serde_json::to_string(timing).expect("a timing is plain data");
        append_line(&mut self.timings, &line).map_err(|e| self.full("timings.jsonl", e))
    }

    fn full(&self, name: &str, e: io::Error) -> TrainError {
        TrainError::file(self.root.join(name), format!("{e} ({RESUME})"))
    }

    /// Syncs the metrics to disk, before a checkpoint that relies on them.
    ///
    /// # Errors
    /// File system errors.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.metrics.sync_all().map_err(|e| self.full("metrics.jsonl", e))
    }

    /// Truncates all lines after `step`, or all lines without a checkpoint; returns the remaining
    /// metrics.
    ///
    /// # Errors
    /// File system errors.
    pub fn cut_after(&mut self, step: Option<u64>) -> Result<Vec<Record>, TrainError> {
        let path = |name: &str| self.root.join(name);
        cut(&self.timings, &path("timings.jsonl"), step, |timing: &Timing| timing.step)?;
        cut(&self.metrics, &path("metrics.jsonl"), step, |record| match record {
            Record::Step(step) => step.step,
            Record::Eval(eval) => eval.step,
        })
    }
}

/// Whether a configuration differs from the one `before` only by more training steps.
fn is_extended(before: &str, now: &str) -> bool {
    let without_steps = |text: &str| {
        let mut table: toml::Table = text.parse().ok()?;
        let steps = table.get_mut("train")?.as_table_mut()?.remove("steps")?.as_integer()?;
        Some((table, steps))
    };
    match (without_steps(before), without_steps(now)) {
        (Some((before, fewer)), Some((now, more))) => before == now && more > fewer,
        _ => false,
    }
}

/// Keeps the lines of `file` up to step `last`. Stops at an incomplete line, which a killed process
/// may leave.
fn cut<T: DeserializeOwned>(
    file: &File,
    path: &Path,
    last: Option<u64>,
    step: impl Fn(&T) -> u64,
) -> Result<Vec<T>, TrainError> {
    let text = fs::read(path).map_err(|e| TrainError::file(path, e))?;
    let mut kept = Vec::new();
    let mut bytes = 0;
    for line in text.split_inclusive(|&b| b == b'\n') {
        let Ok(entry) = serde_json::from_slice::<T>(line) else { break };
        if !line.ends_with(b"\n") || last.is_none_or(|last| step(&entry) > last) {
            break;
        }
        bytes += line.len();
        kept.push(entry);
    }
    file.set_len(bytes as u64).map_err(|e| TrainError::file(path, e))?;
    Ok(kept)
}

fn append_line(file: &mut File, line: &str) -> io::Result<()> {
    file.write_all(format!("{line}\n").as_bytes())
}

/// Syncs the names of a folder's files to disk.
pub(crate) fn sync_folder(path: &Path) -> Result<(), TrainError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| TrainError::file(path, e))
}

/// Takes the folder's lock, which the operating system releases when the process ends.
fn lock(root: &Path) -> Result<File, TrainError> {
    // A process that was just killed, or a child that it was spawning, may hold the lock briefly.
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match take_lock(&root.join("lock")).map_err(|e| unwritable(root, e))? {
            FileLock::Taken(file) => return Ok(file),
            FileLock::Held(_) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            FileLock::Held(by) => {
                let what = format!(
                    "another run is using this folder: {by}; wait for it or stop it, or choose \
                     another folder"
                );
                return Err(TrainError::file(root, what));
            }
        }
    }
}

/// The error of a folder in which nothing can be created.
fn unwritable(root: &Path, error: io::Error) -> TrainError {
    let what = format!("nothing can be written to this folder: {error}; choose another --folder");
    TrainError::file(root, what)
}

/// Replaces a file atomically: readers see the old or the new contents, also after a power failure.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    leyden_core::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|e| TrainError::file(path, e))
}
