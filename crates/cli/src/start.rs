//! Starts runs of experiments with their observers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use leyden_core::record::Record;
use leyden_report::tensorboard::EventWriter;
use leyden_suite::environment::{Stage, stage};
use leyden_suite::{Registry, model};
use leyden_train::{Experiment, Finish, Observer};
use serde_json::json;

use crate::live::{At, Both, LivePage};

/// Sets the threads of libtorch and of the tools, once per process.
pub fn set_threads(threads: usize) -> Result<()> {
    tch::set_num_threads(i32::try_from(threads).context("model.threads is too large")?);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("cannot start the worker threads")
}

/// Writes the metrics as TensorBoard events.
struct Events {
    dir: PathBuf,
    writer: Option<EventWriter>,
}

impl Events {
    fn write(&mut self, record: &Record) -> std::io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => EventWriter::create(&self.dir, now)?,
        };
        writer.record(record, now)?;
        self.writer = Some(writer);
        Ok(())
    }
}

impl Observer for Events {
    fn record(&mut self, record: &Record) {
        if let Err(error) = self.write(record) {
            eprintln!("{}: cannot write TensorBoard events: {error}", self.dir.display());
        }
    }

    /// Event files cannot be truncated, so those of an interrupted run are rewritten.
    fn resumed(&mut self, kept: &[Record]) {
        let _ = std::fs::remove_dir_all(&self.dir);
        for record in kept {
            self.record(record);
        }
    }
}

/// Runs an experiment in `folder`.
pub fn run_experiment(
    registry: &Registry,
    experiment: &Experiment,
    folder: &Path,
) -> Result<Finish> {
    run_watched(registry, experiment, folder, None)
}

/// Runs an experiment in `folder`, with a live page if `live` is set.
pub fn run_watched(
    registry: &Registry,
    experiment: &Experiment,
    folder: &Path,
    live: Option<At>,
) -> Result<Finish> {
    if folder.join("finished").exists() && folder.join("config.toml").exists() {
        let before = std::fs::read_to_string(folder.join("config.toml"))?;
        if before == experiment.to_toml() {
            return Ok(Finish::AlreadyDone);
        }
    }
    let (model, described) =
        model::load(&experiment.model.source, experiment.model.control_tokens)?;
    let Stage { mut environment, folder: _kept } = stage(registry, experiment, folder)?;
    environment.provenance.extend(described);
    let template = model.format.template().source();
    environment.provenance.insert(
        "template_sha256".to_owned(),
        json!(leyden_train::provenance::hash(template.as_bytes())),
    );
    let mut events = Events { dir: folder.join("tensorboard"), writer: None };
    let Some(at) = live else {
        return Ok(leyden_train::run(experiment, &environment, model, folder, &mut events)?);
    };
    let format = Arc::clone(&model.format);
    let decode = Arc::new(move |ids: &[u32]| format.tokenizer().decode(ids, true));
    let page = LivePage::open(at, experiment, folder, Some(decode))?;
    let mut both = Both(events, page);
    let result = leyden_train::run(experiment, &environment, model, folder, &mut both);
    let result = result.map_err(anyhow::Error::from);
    both.1.end(&result);
    result
}
