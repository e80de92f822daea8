//! Output files of an evaluation: predictions, and the files of a run.
//!
//! ```text
//! config.toml         all settings
//! provenance.json     revision, versions, hashes, seeds
//! predictions.jsonl   one line per rollout
//! metrics.jsonl       one line per mode, as in a run's evaluations
//! summary.txt         rewards and failures as tables
//! rollouts.sqlite     all calls
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use leyden_core::record::{EvalRecord, Record};
use leyden_core::{Outcome, Rollout, Scorer, Task};
use leyden_text::ChatFormat;
use leyden_train::evaluation::summarise;
use leyden_train::store::{Place, RolloutStore, signal_name};
use serde_json::{Value, json};

use super::{Failure, Mode};
use crate::benchmark::Benchmark;

/// The output folder of an evaluation.
pub struct Output {
    folder: PathBuf,
    predictions: File,
    metrics: File,
    store: RolloutStore,
}

impl Output {
    /// Creates the folder and its files.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let create = |name: &str| {
            let path = folder.join(name);
            File::create(&path).with_context(|| path.display().to_string())
        };
        Ok(Self {
            folder: folder.to_owned(),
            predictions: create("predictions.jsonl")?,
            metrics: create("metrics.jsonl")?,
            store: RolloutStore::open(&folder.join("rollouts.sqlite"))?,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// Errors of the file system, as in the other methods.
    pub fn config(&self, settings: &Value) -> Result<()> {
        self.write("config.toml", &toml::to_string(settings)?)
    }

    /// Writes `provenance.json`.
    pub fn provenance(&self, provenance: &Value) -> Result<()> {
        self.write("provenance.json", &format!("{provenance:#}\n"))
    }

    /// Writes `summary.txt`.
    pub fn summary(&self, table: &str) -> Result<()> {
        self.write("summary.txt", table)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Appends rollouts to the predictions and to the store; the group of a rollout is the place of
    /// its task in `tasks`.
    pub fn rollouts(
        &mut self,
        benchmark: &dyn Benchmark,
        mode: Mode,
        tasks: &[Task],
        rollouts: &[Rollout],
        format: &ChatFormat,
    ) -> Result<()> {
        let line = |rollout: &Rollout| {
            format!("{}\n", prediction(benchmark, mode, &tasks[rollout.group], rollout))
        };
        let lines: String = rollouts.iter().map(line).collect();
        let path = || self.folder.join("predictions.jsonl").display().to_string();
        self.predictions.write_all(lines.as_bytes()).with_context(path)?;
        let owners: Vec<&Task> = rollouts.iter().map(|r| &tasks[r.group]).collect();
        let text = |ids: &[u32]| format.tokenizer().decode(ids, true);
        let place = Place { step: 0, phase: mode.name() };
        Ok(self.store.write(place, rollouts, &owners, &[], Some(&text))?)
    }

    /// Appends the record of a mode.
    pub fn record(
        &mut self,
        mode: Mode,
        tasks: &[Task],
        rollouts: &[Rollout],
        scorer: &dyn Scorer,
    ) -> Result<EvalRecord> {
        let eval = summarise(0, mode.name(), tasks, rollouts, scorer);
        let record = Record::Eval(Box::new(eval.clone()));
        let line = serde_json::to_string(&record)?;
        let path = || self.folder.join("metrics.jsonl").display().to_string();
        writeln!(self.metrics, "{line}").with_context(path)?;
        Ok(eval)
    }
}

/// A rollout as one line of JSON.
fn prediction(benchmark: &dyn Benchmark, mode: Mode, task: &Task, rollout: &Rollout) -> Value {
    let signals: Vec<Value> = rollout
        .signals
        .iter()
        .map(|signal| {
            let kind = signal_name(&signal.kind);
            json!({ "kind": kind, "call": signal.call, "detail": signal.detail })
        })
        .collect();
    let calls: Vec<&str> = rollout.calls.iter().map(|call| call.text.as_str()).collect();
    let mut line = json!({
        "mode": mode.name(),
        "id": task.id,
        "question": task.question,
        "gold": task.gold,
        "answer": rollout.answer,
        "reward": rollout.outcome.reward(),
        "failure": Failure::of(benchmark, rollout).map(Failure::name),
        "calls": calls,
        "signals": signals,
    });
    if let Outcome::Missing(why) = &rollout.outcome {
        line["missing"] = json!(why);
    }
    line
}
