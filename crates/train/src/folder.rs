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
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Experiment;
use crate::error::TrainError;

/// A run's folder.
pub struct RunFolder {
    root: PathBuf,
    metrics: File,
    timings: File,
    /// Held during the run: two processes in one folder would corrupt it.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder, or opens the existing one of the same experiment.
    ///
    /// # Errors
    /// A folder of another experiment, or one locked by a running process.
    pub fn open(root: &Path, experiment: &Experiment) -> Result<Self, TrainError> {
        fs::create_dir_all(root.join("checkpoints")).map_err(|e| TrainError::file(root, e))?;
        let lock = lock(&root.join("lock"))?;
        let config = root.join("config.toml");
        let text = experiment.to_toml();
        match fs::read_to_string(&config).map(|before| experiment.rewritten_alike(&before)) {
            Ok(before) if before == text => {}
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
        Ok(Self {
            root: root.to_owned(),
            metrics: append("metrics.jsonl")?,
            timings: append("timings.jsonl")?,
            _lock: lock,
        })
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
        let again = "the run is saved up to its latest checkpoint; run the same command to resume";
        TrainError::file(self.root.join(name), format!("{e} ({again})"))
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

/// Takes the folder's lock, which the operating system releases when the process ends.
fn lock(path: &Path) -> Result<File, TrainError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| TrainError::file(path, e))?;
    // A process that was just killed, or a child that it was spawning, may hold the lock briefly.
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(TrainError::file(path, "another process is running this experiment"));
            }
            Err(fs::TryLockError::Error(e)) => return Err(TrainError::file(path, e)),
        }
    }
}

/// Replaces a file atomically: readers see the old or the new contents, also after a power failure.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    leyden_core::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|e| TrainError::file(path, e))
}
