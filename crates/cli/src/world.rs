//! From an experiment's names to the things themselves, and a run with them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_core::record::Record;
use leyden_lm::formats::LoadedModel;
use leyden_report::tensorboard::EventWriter;
use leyden_train::config::{DataConfig, Demonstrations, Objective};
use leyden_train::data::{DemonstrationSource, TaskSource};
use leyden_train::provenance::hash_file;
use leyden_train::successes::Successes;
use leyden_train::{Environment, Experiment, Finish, Observer};
use serde_json::{Map, Value, json};

use crate::dataset::{self, Cast, Dataset, InTurn, Settings, Stream, TEST_TASKS, Train};
use crate::live::{At, Both, LivePage};
use crate::model_source::{self, ModelSource};
use crate::sources::{self, Source};
use crate::tiny;

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

/// A run's environment, with the files that it needs as long as it lasts.
struct Stage {
    environment: Environment,
    /// Databases of a generated world.
    _folder: Option<tempfile::TempDir>,
}

/// Agent, tasks, scorer and demonstrations of an experiment.
fn stage(experiment: &Experiment, folder: &Path) -> Result<Stage> {
    let data = &experiment.data;
    let settings = Settings { run: Some(folder.to_owned()), ..Settings::of(experiment) };
    let dataset = dataset::of(settings.clone())?;
    let count = if experiment.eval.tasks == 0 { TEST_TASKS } else { experiment.eval.tasks };
    let (test, test_described) = sources::tasks(&data.test, 0, dataset.as_ref(), count)?;
    check_disjoint(&data.train, &data.test)?;
    let supervised = experiment.train.objective == Objective::Supervised;
    let successes = own_successes(experiment)?;
    let demonstrated = supervised && successes.is_none();
    let worlds = worlds(&data.train)?;
    let (mut cast, train, train_described): (Cast, Box<dyn TaskSource>, Value) =
        if worlds.is_empty() {
            let (tasks, described) = training_tasks(data, dataset.as_ref(), &test)?;
            let cast = dataset.cast(Train::Tasks(&tasks), &test, demonstrated)?;
            (cast, Box::new(tasks), described)
        } else {
            if !demonstrated {
                let [world] = worlds[..] else {
                    bail!("data.train: worlds cannot be mixed where rewards are the objective");
                };
                sources::check_world(world, dataset.as_ref())?;
            }
            let mut cast = dataset.cast(Train::World, &test, demonstrated)?;
            if demonstrated {
                cast.demonstrations = Some(Box::new(lessons(&worlds, &settings, &mut cast)?));
            }
            let source = |world: &&str| json!({ "source": world, "seed": data.seed });
            let described = worlds.iter().map(source).collect();
            (cast, Box::new(Stream(dataset.world())), described)
        };
    let mut provenance = Map::new();
    provenance.insert(
        "data".to_owned(),
        json!({
            "seed": data.seed,
            "train": train_described,
            "test": test_described,
            "with": cast.described,
        }),
    );
    let mut demonstrations = cast.demonstrations.take();
    if let Some((successes, described)) = successes {
        provenance.insert("successes".to_owned(), described);
        demonstrations = Some(Box::new(successes));
    }
    let environment = Environment {
        agent: cast.agent,
        scorer: cast.scorer,
        train,
        test,
        demonstrations,
        provenance,
    };
    Ok(Stage { environment, _folder: cast.folder })
}

/// The rollouts of another run that are imitated, and what provenance says of them.
fn own_successes(experiment: &Experiment) -> Result<Option<(Successes, Value)>> {
    let data = &experiment.data;
    if data.successes.is_empty() {
        return Ok(None);
    }
    if experiment.train.objective != Objective::Supervised {
        bail!("data.successes: rollouts are imitated where train.objective is supervised");
    }
    let run = Path::new(&data.successes);
    let successes = Successes::read(run, data.success_reward, &experiment.train.roles)?;
    let metrics = run.join("metrics.jsonl");
    let hash = hash_file(&metrics).with_context(|| metrics.display().to_string())?;
    let described = json!({
        "run": data.successes,
        "metrics_sha256": hash,
        "rollouts": successes.rollouts,
        "calls": successes.calls(),
    });
    Ok(Some((successes, described)))
}

/// The generated worlds among `names`; none, or all of them.
fn worlds(names: &[String]) -> Result<Vec<&'static str>> {
    let mut worlds = Vec::new();
    for name in names {
        if let Source::World(world) = Source::parse(name)? {
            worlds.push(world);
        }
    }
    if !worlds.is_empty() && worlds.len() < names.len() {
        bail!("data.train: {} is endless and cannot be mixed with files", worlds[0]);
    }
    Ok(worlds)
}

/// Training tasks of files, without those whose question is a test question too: some
/// datasets repeat questions across their own splits.
fn training_tasks(
    data: &DataConfig,
    dataset: &dyn Dataset,
    test: &[Task],
) -> Result<(Vec<Task>, Value)> {
    let (mut tasks, mut described) = sources::tasks(&data.train, data.train_limit, dataset, 0)?;
    let held_out: HashSet<&str> = test.iter().map(|task| task.question.trim()).collect();
    let before = tasks.len();
    tasks.retain(|task| !held_out.contains(task.question.trim()));
    if tasks.len() < before {
        let shared = before - tasks.len();
        eprintln!("data: {shared} training tasks left out, whose question is in data.test too");
        described = json!({ "sources": described, "left_out_as_test_questions": shared });
    }
    Ok((tasks, described))
}

/// Demonstrations of all `worlds` in turn, each by its own agent; those of the experiment's
/// agent are in `cast` already. A world that is named twice has two turns of each round.
fn lessons(worlds: &[&str], settings: &Settings, cast: &mut Cast) -> Result<InTurn> {
    if settings.data.demonstrations == Demonstrations::Gold && worlds.len() > 1 {
        bail!("data.demonstrations: gold ones are those of one world; name one as data.train");
    }
    let mut distinct: Vec<&str> = Vec::new();
    let mut sources: Vec<Box<dyn DemonstrationSource>> = Vec::new();
    for world in worlds {
        if distinct.contains(world) {
            continue;
        }
        distinct.push(world);
        let agent = dataset::agent_of(world).context("a world without an agent")?;
        let own = if agent == settings.agent.name { cast.demonstrations.take() } else { None };
        sources.push(match own {
            Some(own) => own,
            None => Box::new(tiny::lessons(agent, settings.data.seed)?),
        });
    }
    let turn = |world: &&str| distinct.iter().position(|known| known == world);
    let turns = worlds.iter().filter_map(turn).collect();
    let data = &settings.data;
    Ok(InTurn::new(sources, turns, data.seed, data.exercises))
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
    run_watched(experiment, folder, None)
}

/// Runs an experiment in `folder`, with a live page where one is asked for.
pub fn run_watched(experiment: &Experiment, folder: &Path, live: Option<At>) -> Result<Finish> {
    if folder.join("finished").exists() && folder.join("config.toml").exists() {
        let before = std::fs::read_to_string(folder.join("config.toml"))?;
        if before == experiment.to_toml() {
            return Ok(Finish::AlreadyDone);
        }
    }
    let (model, described) = load_model(&experiment.model.source)?;
    let Stage { mut environment, _folder } = stage(experiment, folder)?;
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
