//! Reads a run folder: configuration, provenance, metrics, timings, sample rollouts.
//!
//! A report must be possible while the run is active and after it was killed, so a truncated
//! last line is skipped with a note, and files that a run may lack (timings, provenance,
//! rollouts) are optional. Invalid content is an error that names the line: a curve with silent
//! gaps would be worse than none.

use std::fs;
use std::path::{Path, PathBuf};

use leyden_core::record::{EvalRecord, RECORD_SCHEMA, Record, StepRecord, Timing};
use serde_json::Value;

use crate::error::ReportError;
use crate::recorded;
use crate::rollouts::{self, Samples};

/// The data of one run that a report shows.
#[derive(Debug, Clone)]
pub struct Run {
    pub folder: PathBuf,
    /// `name` of the configuration, otherwise the folder's name.
    pub name: String,
    pub seed: Option<i64>,
    /// The resolved configuration, as a tree and as written.
    pub config: toml::Table,
    pub config_text: String,
    /// Program, machine and inputs of the run; empty if the file is missing.
    pub provenance: serde_json::Map<String, Value>,
    /// Ascending by step.
    pub steps: Vec<StepRecord>,
    /// Ascending by step, in each step in the order of the file.
    pub evals: Vec<EvalRecord>,
    pub timings: Vec<Timing>,
    /// Sample rollouts; `None` if the run kept none.
    pub samples: Option<Samples>,
    /// Warnings from reading the run, for the reader of the report.
    pub notes: Vec<String>,
}

/// A reward level drawn for comparison, with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceLevel {
    pub label: String,
    pub value: f64,
}

impl Run {
    /// Evaluations of one mode, `greedy` or `sampled`, ascending by step.
    pub fn evals(&self, mode: &str) -> impl Iterator<Item = &EvalRecord> {
        self.evals.iter().filter(move |eval| eval.mode == mode)
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.evals.is_empty()
    }

    /// The levels of `[report]`: `paper_start` and `paper_end`, named by `paper_label`.
    pub fn levels(&self) -> Vec<ReferenceLevel> {
        let Some(report) = self.config.get("report").and_then(toml::Value::as_table) else {
            return Vec::new();
        };
        let label = report.get("paper_label").and_then(toml::Value::as_str).unwrap_or("paper");
        [("paper_start", "start"), ("paper_end", "end")]
            .into_iter()
            .filter_map(|(key, word)| {
                let value = number(report.get(key)?)?;
                Some(ReferenceLevel { label: format!("{label}, {word}"), value })
            })
            .collect()
    }

    /// `seed 3`, or the folder's name if the seed is unknown.
    pub fn seed_label(&self) -> String {
        match self.seed {
            Some(seed) => format!("seed {seed}"),
            None => folder_name(&self.folder),
        }
    }
}

/// Reads a run folder, or a run of a recorded folder ([`recorded`]).
///
/// # Errors
/// [`ReportError`] if the folder or its configuration is missing, a line is not a record or has a
/// newer schema, the rollouts' database cannot be opened, or a recorded folder has several runs.
pub fn load(run_dir: &Path) -> Result<Run, ReportError> {
    if recorded::is_recorded(run_dir) {
        return match recorded::sources(&[run_dir.to_owned()])?.as_slice() {
            [only] => only.load(),
            several => {
                let runs = several.iter().map(|source| source.shown.clone()).collect();
                Err(ReportError::Several { folder: run_dir.to_owned(), runs })
            }
        };
    }
    if !run_dir.is_dir() {
        return match recorded::within_archive(run_dir)? {
            Some(source) => source.load(),
            None => Err(ReportError::NoFolder(run_dir.to_owned())),
        };
    }
    load_folder(run_dir)
}

/// Reads a run folder that is not recorded.
pub(crate) fn load_folder(run_dir: &Path) -> Result<Run, ReportError> {
    let config_path = run_dir.join("config.toml");
    let config_text =
        read(&config_path)?.ok_or_else(|| ReportError::NotARun(run_dir.to_owned()))?;
    let config: toml::Table = config_text.parse().map_err(|error: toml::de::Error| {
        ReportError::Config { path: config_path, message: one_line(&error.to_string()) }
    })?;
    let provenance = provenance(&run_dir.join("provenance.json"))?;
    let mut notes = Vec::new();
    let (steps, evals) = metrics(&run_dir.join("metrics.jsonl"), &mut notes)?;
    let timings = timings(&run_dir.join("timings.jsonl"), &mut notes)?;
    let samples = match rollouts::read(&run_dir.join("rollouts.sqlite"))? {
        Some(samples) => Some(samples),
        None => recorded_samples(&run_dir.join(recorded::SAMPLES))?,
    };
    let name = config.get("name").and_then(toml::Value::as_str).map(str::to_owned);
    Ok(Run {
        name: name.unwrap_or_else(|| folder_name(run_dir)),
        seed: seed(&config, &provenance),
        folder: run_dir.to_owned(),
        config,
        config_text,
        provenance,
        steps,
        evals,
        timings,
        samples,
        notes,
    })
}

fn metrics(
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<(Vec<StepRecord>, Vec<EvalRecord>), ReportError> {
    let (mut steps, mut evals) = (Vec::new(), Vec::new());
    for record in records(path, notes)? {
        match record {
            Record::Step(step) => steps.push(*step),
            Record::Eval(eval) => evals.push(*eval),
        }
    }
    steps.sort_by_key(|step| step.step);
    evals.sort_by_key(|eval| eval.step);
    Ok((steps, evals))
}

/// The records of a `metrics.jsonl`, in order; empty if there is no file.
pub(crate) fn records(path: &Path, notes: &mut Vec<String>) -> Result<Vec<Record>, ReportError> {
    let mut records = Vec::new();
    for (line, value) in json_lines(path, notes)? {
        let found = value.get("schema").and_then(Value::as_u64).unwrap_or(0);
        if found > u64::from(RECORD_SCHEMA) {
            let known = RECORD_SCHEMA;
            return Err(ReportError::Schema { path: path.to_owned(), line, found, known });
        }
        records.push(record(value).map_err(|error| ReportError::Line {
            path: path.to_owned(),
            line,
            message: error.to_string(),
        })?);
    }
    Ok(records)
}

fn timings(path: &Path, notes: &mut Vec<String>) -> Result<Vec<Timing>, ReportError> {
    json_lines(path, notes)?
        .into_iter()
        .map(|(line, value)| {
            serde_json::from_value(value).map_err(|error| ReportError::Line {
                path: path.to_owned(),
                line,
                message: error.to_string(),
            })
        })
        .collect()
}

/// Parses one record. JSON has no NaN and `serde_json` writes it as null; null is read back as
/// NaN, so that runs with an exploding gradient can be reported.
fn record(mut value: Value) -> Result<Record, serde_json::Error> {
    let mut blanks = Vec::new();
    if let Some(object) = value.as_object_mut() {
        for (key, entry) in object.iter_mut().filter(|(_, entry)| entry.is_null()) {
            blanks.push(key.clone());
            *entry = Value::from(0.0);
        }
    }
    let mut record: Record = serde_json::from_value(value)?;
    for key in blanks {
        let field = match &mut record {
            Record::Step(step) => match key.as_str() {
                "reward_mean" => &mut step.reward_mean,
                "reward_std" => &mut step.reward_std,
                "calls_per_rollout" => &mut step.calls_per_rollout,
                "response_length" => &mut step.response_length,
                "truncated" => &mut step.truncated,
                "loss" => &mut step.loss,
                "entropy" => &mut step.entropy,
                "grad_norm" => &mut step.grad_norm,
                "learning_rate" => &mut step.learning_rate,
                "clip_fraction" => &mut step.clip_fraction,
                "sampler_kl" => &mut step.sampler_kl,
                "sampler_gap" => &mut step.sampler_gap,
                "sampler_outside" => &mut step.sampler_outside,
                _ => continue,
            },
            Record::Eval(eval) => match key.as_str() {
                "reward_mean" => &mut eval.reward_mean,
                "response_length" => &mut eval.response_length,
                "calls_per_rollout" => &mut eval.calls_per_rollout,
                _ => continue,
            },
        };
        *field = f64::NAN;
    }
    Ok(record)
}

/// The lines of a JSONL file with their numbers from 1; empty if there is no file. A last line
/// without newline that does not parse was truncated by an interruption.
fn json_lines(path: &Path, notes: &mut Vec<String>) -> Result<Vec<(usize, Value)>, ReportError> {
    let Some(text) = read(path)? else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    let mut pieces = text.split_inclusive('\n').enumerate().peekable();
    while let Some((index, piece)) = pieces.next() {
        if piece.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(piece) {
            Ok(value) => lines.push((index + 1, value)),
            Err(_) if pieces.peek().is_none() && !piece.ends_with('\n') => {
                let file = folder_name(path);
                notes.push(format!("The last line of {file} is truncated and was skipped."));
            }
            Err(error) => {
                let (path, message) = (path.to_owned(), error.to_string());
                return Err(ReportError::Line { path, line: index + 1, message });
            }
        }
    }
    Ok(lines)
}

/// The sample rollouts of a recording.
fn recorded_samples(path: &Path) -> Result<Option<Samples>, ReportError> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| ReportError::Samples { path: path.to_owned(), message: error.to_string() })
}

fn provenance(path: &Path) -> Result<serde_json::Map<String, Value>, ReportError> {
    let Some(text) = read(path)? else { return Ok(serde_json::Map::new()) };
    serde_json::from_str(&text).map_err(|error| ReportError::Provenance {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// A file's text, lossy where a truncated write split a character; `None` if there is no file.
fn read(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Read { path: path.to_owned(), source }),
    }
}

fn seed(config: &toml::Table, provenance: &serde_json::Map<String, Value>) -> Option<i64> {
    config
        .get("seed")
        .or_else(|| config.get("run")?.get("seed"))
        .and_then(toml::Value::as_integer)
        .or_else(|| provenance.get("seed").and_then(Value::as_i64))
}

fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

pub(crate) fn folder_name(path: &Path) -> String {
    let canonical = path.canonicalize();
    let path = canonical.as_deref().unwrap_or(path);
    path.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
