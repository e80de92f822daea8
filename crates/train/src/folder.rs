//! The run folder: what is written where, and what survives an interruption.
//!
//! ```text
//! config.toml        the resolved experiment
//! provenance.json    revision, versions, hashes, seeds
//! metrics.jsonl      one line a step or evaluation; nothing in it depends on the clock
//! timings.jsonl      seconds of the same
//! rollouts.sqlite    every call
//! checkpoints/       step-000040/…, written aside, synced, renamed
//! final/             the trained model as a Hugging Face folder
//! finished           exists once the run is complete
//! ```
//!
//! A resumed run goes back to its latest checkpoint and cuts everything after it off the
//! other files, so that its bytes are those of a run that was left alone.

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
    /// Held while the run is going on: two processes in one folder would spoil it.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder, or opens that of an earlier start of the same experiment.
    ///
    /// # Errors
    /// A folder that holds another experiment, or in which a run is going on.
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
                        "this folder holds a run of another configuration{line}; \
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
    /// The file system's own.
    pub fn finish(&self) -> Result<(), TrainError> {
        self.sync()?;
        write_atomic(&self.root.join("finished"), b"")
    }

    /// Writes `provenance.json`; of several starts the latest is kept under `resumed`.
    ///
    /// # Errors
    /// The file system's own.
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
    /// The file system's own, a full disk among them.
    pub fn record(&mut self, record: &Record) -> Result<(), TrainError> {
        let line = serde_json::to_string(record).expect("a record is plain data");
        append_line(&mut self.metrics, &line).map_err(|e| self.full("metrics.jsonl", e))
    }

    /// Appends one line to `timings.jsonl`.
    ///
    /// # Errors
    /// The file system's own.
    pub fn timing(&mut self, timing: &Timing) -> Result<(), TrainError> {
        let line = serde_json::to_string(timing).expect("a timing is plain data");
        append_line(&mut self.timings, &line).map_err(|e| self.full("timings.jsonl", e))
    }

    fn full(&self, name: &str, e: io::Error) -> TrainError {
        let again = "the run is safe up to its latest checkpoint; the same command goes on from it";
        TrainError::file(self.root.join(name), format!("{e} ({again})"))
    }

    /// Brings the metrics to the disk, before a checkpoint claims them.
    ///
    /// # Errors
    /// The file system's own.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.metrics.sync_all().map_err(|e| self.full("metrics.jsonl", e))
    }

    /// Cuts off all lines after `step`, or everything where there is no checkpoint; returns the
    /// metrics that are left.
    ///
    /// # Errors
    /// The file system's own.
    pub fn cut_after(&mut self, step: Option<u64>) -> Result<Vec<Record>, TrainError> {
        let path = |name: &str| self.root.join(name);
        cut(&self.timings, &path("timings.jsonl"), step, |timing: &Timing| timing.step)?;
        cut(&self.metrics, &path("metrics.jsonl"), step, |record| match record {
            Record::Step(step) => step.step,
            Record::Eval(eval) => eval.step,
        })
    }
}

/// Keeps the lines of `file` up to step `last`. A torn line, which a killed process may leave,
/// ends the reading.
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

/// Takes the folder's lock, which the system releases when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, TrainError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| TrainError::file(path, e))?;
    // A process that was just killed, or a child that it was starting, may hold it a moment
    // longer.
    let given_up = Instant::now() + Duration::from_secs(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < given_up => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(TrainError::file(path, "another process is running this experiment"));
            }
            Err(fs::TryLockError::Error(e)) => return Err(TrainError::file(path, e)),
        }
    }
}

/// Whoever reads the file meanwhile, or after a power cut, sees the old text or the new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    leyden_core::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|e| TrainError::file(path, e))
}
