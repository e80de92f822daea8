//! From an experiment's names to the things themselves: model, agent, tasks, scorer.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use leyden_calc::{CalculatorAgent, Prompt};
use leyden_calcx::CalcxScorer;
use leyden_core::Task;
use leyden_core::record::Record;
use leyden_lm::LoadedModel;
use leyden_mini::MiniCalc;
use leyden_report::tensorboard::EventWriter;
use leyden_train::config::{AgentConfig, Objective};
use leyden_train::data::{DemonstrationSource, TaskSource};
use leyden_train::{Environment, Experiment, Finish, Observer};
use serde_json::{Map, json};

use crate::demonstrations::{ChainDemonstrations, NoisyDemonstrations};
use crate::model_source::{self, ModelSource};
use crate::sources::{self, Source};
use crate::tiny;

/// Tasks of a generated test split where an experiment asks for all.
const MINI_TEST_TASKS: usize = 256;

/// Sets the threads of libtorch and of the tools, once per process.
pub fn set_threads(threads: usize) -> Result<()> {
    tch::set_num_threads(i32::try_from(threads).context("model.threads is too large")?);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("the worker threads could not be started")
}

/// A model by its name; see [`ModelSource`].
pub fn load_model(source: &str) -> Result<(LoadedModel, Map<String, serde_json::Value>)> {
    let path = match ModelSource::parse(source) {
        ModelSource::Tiny => return tiny::embedded(),
        ModelSource::Path(path) => path,
        ModelSource::Hub(id) => model_source::from_hub(&id)?,
        ModelSource::Pypi(package) => return Err(model_source::not_imported(&package)),
    };
    let model = LoadedModel::load(&path)?;
    Ok((model, describe_model(source, &path)?))
}

/// Names and hashes of a model's files.
fn describe_model(source: &str, path: &Path) -> Result<Map<String, serde_json::Value>> {
    let mut files = Map::new();
    let mut add = |path: &Path| -> Result<()> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(name, json!(leyden_train::provenance::hash_file(path)?));
        Ok(())
    };
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path)?.filter_map(|e| Some(e.ok()?.path())).collect();
        entries.sort();
        for file in entries.iter().filter(|p| {
            p.extension().is_some_and(|e| ["json", "safetensors", "jinja"].iter().any(|x| e == *x))
        }) {
            add(file)?;
        }
    } else {
        add(path)?;
    }
    let mut described = Map::new();
    described.insert("model".to_owned(), json!({ "source": source, "sha256": files }));
    Ok(described)
}

/// An agent by its name.
pub fn agent(config: &AgentConfig) -> Result<CalculatorAgent> {
    if config.name != "calc" {
        bail!("agent.name: there is no agent `{}`; there is calc", config.name);
    }
    let prompt = match config.prompt.as_str() {
        "full" => Prompt::Full,
        "compact" => Prompt::Compact,
        other => bail!("agent.prompt: `{other}`: use full or compact"),
    };
    Ok(CalculatorAgent::new(prompt, config.max_turns))
}

/// The endless stream of a generated world.
struct MiniStream(MiniCalc);

impl TaskSource for MiniStream {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        self.0.train(index)
    }
}

/// Agent, tasks, scorer and demonstrations of an experiment.
pub fn environment(experiment: &Experiment) -> Result<Environment> {
    let data = &experiment.data;
    let agent = agent(&experiment.agent)?;
    let mini = MiniCalc::new(data.seed);
    let test_count =
        if experiment.eval.tasks == 0 { MINI_TEST_TASKS } else { experiment.eval.tasks };
    let (test, test_described) = sources::tasks(&data.test, 0, &mini, test_count)?;
    let generated = data.train.iter().any(|name| name == "mini-calc");
    let supervised = experiment.train.objective == Objective::Supervised;
    let (train, demonstrations, train_described): (
        Box<dyn TaskSource>,
        Option<Box<dyn DemonstrationSource>>,
        _,
    ) = if generated {
        if data.train.len() > 1 {
            bail!("data.train: mini-calc is endless and cannot be mixed with other sources");
        }
        let noisy: Option<Box<dyn DemonstrationSource>> = if supervised {
            Some(Box::new(NoisyDemonstrations::new(MiniCalc::new(data.seed), agent.clone())))
        } else {
            None
        };
        (Box::new(MiniStream(mini)), noisy, json!([{ "source": "mini-calc", "seed": data.seed }]))
    } else {
        let (mut tasks, mut described) = sources::tasks(&data.train, data.train_limit, &mini, 0)?;
        // Some datasets repeat questions across their own splits.
        let held_out: HashSet<&str> = test.iter().map(|task| task.question.trim()).collect();
        let before = tasks.len();
        tasks.retain(|task| !held_out.contains(task.question.trim()));
        if tasks.len() < before {
            let shared = before - tasks.len();
            eprintln!("data: {shared} training tasks left out, whose question is in data.test too");
            described = json!({ "sources": described, "left_out_as_test_questions": shared });
        }
        let shown: Option<Box<dyn DemonstrationSource>> = if supervised {
            let (source, flaws) = ChainDemonstrations::of(&tasks, agent.clone());
            for (flaw, count) in flaws {
                eprintln!("demonstrations: {count} of {} tasks left out: {flaw}", tasks.len());
            }
            if source.is_empty() {
                bail!("data.train: no task has a chain that can be shown");
            }
            Some(Box::new(source))
        } else {
            None
        };
        (Box::new(tasks), shown, described)
    };
    check_disjoint(&data.train, &data.test)?;
    let mut provenance = Map::new();
    provenance.insert(
        "data".to_owned(),
        json!({ "seed": data.seed, "train": train_described, "test": test_described }),
    );
    Ok(Environment {
        agent: Arc::new(agent),
        scorer: Arc::new(CalcxScorer),
        train,
        test,
        demonstrations,
        provenance,
    })
}

/// Refuses to test on rows that are trained on.
fn check_disjoint(train: &[String], test: &[String]) -> Result<()> {
    for a in train {
        for b in test {
            if let (Source::File { path: pa, rows: ra }, Source::File { path: pb, rows: rb }) =
                (Source::parse(a)?, Source::parse(b)?)
            {
                let all = || 0..usize::MAX;
                let (ra, rb) = (ra.unwrap_or_else(all), rb.unwrap_or_else(all));
                if pa == pb && ra.start < rb.end && rb.start < ra.end {
                    bail!("data: {a} and {b} share rows; test tasks must not be trained on");
                }
            }
        }
    }
    Ok(())
}

/// Writes the metrics as TensorBoard events beside them.
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
            eprintln!("{}: TensorBoard events are not written: {error}", self.dir.display());
        }
    }

    /// Event files cannot be cut, so those of an interrupted run are written anew.
    fn resumed(&mut self, kept: &[Record]) {
        let _ = std::fs::remove_dir_all(&self.dir);
        for record in kept {
            self.record(record);
        }
    }
}

/// Runs an experiment in `folder`.
pub fn run_experiment(experiment: &Experiment, folder: &Path) -> Result<Finish> {
    if folder.join("finished").exists() && folder.join("config.toml").exists() {
        let before = std::fs::read_to_string(folder.join("config.toml"))?;
        if before == experiment.to_toml() {
            return Ok(Finish::AlreadyDone);
        }
    }
    let (model, described) = load_model(&experiment.model.source)?;
    let mut environment = environment(experiment)?;
    environment.provenance.extend(described);
    let template = model.format.template().source();
    environment.provenance.insert(
        "template_sha256".to_owned(),
        json!(leyden_train::provenance::hash(template.as_bytes())),
    );
    let mut events = Events { dir: folder.join("tensorboard"), writer: None };
    Ok(leyden_train::run(experiment, &environment, model, folder, &mut events)?)
}
