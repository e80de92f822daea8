//! The text-to-SQL agent on Spider and mini-spider.

mod demonstrations;
mod describe;
mod fetch;
mod score;

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use leyden_core::rows::{RowError, required};
use leyden_core::{FinishReason, Rollout, SignalKind, Task};
use leyden_hub::parquet;
use leyden_mini::MiniSpider;
use leyden_spider::loader::{UnusableDatabase, WithoutRows};
use leyden_spider::scorer::DATABASE_FIELD;
use leyden_spider::{Limits, Spider, SpiderScorer, Workers, golden};
use leyden_sql::{Check, Prompt, SqlAgent};
use leyden_train::config::{OwnKey, Preset};
use serde_json::{Map, Value, json};

use crate::benchmark::{
    Assembled, Benchmark, Dataset, Entries, Fetch, GeneratedWorld, Golden, LoadedTasks, Published,
    Train, World, databases_of,
};
use crate::describe::Description;
use crate::evaluation::Failure;
use crate::external::Extras;
use crate::fetch::Written;
use crate::own_tasks::{self, Fields};
use crate::predictions::{Files, Scored};
use crate::registry::Registry;
use crate::reward::Reward;
use crate::settings::{BenchmarkSettings, PROCESS_REWARD, process_reward_key};
use crate::worker;

/// The text-to-SQL agent.
pub struct Sql;

const CHECK: &str = "agent.check";
const DATABASES: &str = "data.databases";

impl Benchmark for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn what(&self) -> &'static str {
        "text-to-SQL"
    }

    fn strata(&self) -> &'static [&'static str] {
        &["database"]
    }

    fn keys(&self) -> Vec<OwnKey> {
        vec![
            process_reward_key(),
            OwnKey::new(
                CHECK,
                Preset::Text("model"),
                "sql: how queries are checked: model (in a separate call) or execution",
            )
            .flag("check", "WHO"),
            OwnKey::new(
                DATABASES,
                Preset::Text(""),
                "sql: folder with tables.json and the databases; the questions' folder if empty",
            )
            .flag("databases", "FOLDER"),
        ]
    }

    fn reward(&self) -> &'static str {
        "execution match"
    }

    fn files(&self) -> &'static str {
        "Spider (JSON, JSONL, Parquet), or of question, query and database"
    }

    fn max_turns(&self) -> usize {
        3
    }

    fn prepare(&self, settings: BenchmarkSettings, _: &Registry) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(Prepared::new(&settings)?))
    }

    fn worlds(&self) -> Vec<GeneratedWorld> {
        vec![GeneratedWorld::new(WORLD, |seed| Arc::new(MiniSpider::new(seed))).pretrained(
            "tiny",
            |settings| {
                settings.agent.max_turns = 3;
                settings.agent.result_characters = 60;
            },
        )]
    }

    fn published(&self) -> Option<Published> {
        Some(Published { name: "spider", repository: "lklimkiewicz/Spider-Raw" })
    }

    fn fetch(&self, fetch: &Fetch<'_>) -> Result<Written> {
        fetch::fetch(fetch.hub, fetch.repository, fetch.out)
    }

    fn recognises(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("db_id") || (has("database") && has("query"))
    }

    fn score(&self, files: &Files, registry: &Registry) -> Result<Scored> {
        score::score(files, registry)
    }

    /// Classifies by the last query; failures of earlier queries do not matter.
    fn failure(&self, rollout: &Rollout, _: f64) -> Failure {
        if rollout.answer.is_none() {
            return Failure::NoAnswer;
        }
        let cut = || rollout.calls.iter().any(|call| call.finish == FinishReason::Length);
        let last = rollout.calls.iter().rposition(|call| call.agent_role != leyden_sql::CHECK);
        let of_last = rollout.signals.iter().filter(|signal| Some(signal.call) == last);
        for signal in of_last {
            match signal.kind {
                SignalKind::ToolError if signal.detail.starts_with("syntax") => {
                    return if cut() { Failure::CutOff } else { Failure::Unparsable };
                }
                SignalKind::ToolError => return Failure::ExecutionError,
                SignalKind::EmptyResult => return Failure::EmptyResult,
                _ => {}
            }
        }
        Failure::WrongRows
    }

    fn work(&self) -> Result<()> {
        leyden_spider::database::worker::serve().context("this process is started by leyden itself")
    }

    fn golden(&self) -> Vec<Golden> {
        let check = |file: &Path, databases: Option<&Path>| {
            Ok(golden::check(file, databases.context("spider cases need --db")?, workers())?)
        };
        vec![Golden { name: "spider", check }]
    }
}

/// The processes that run queries, shared by all that this process opens.
fn workers() -> Option<Arc<Workers>> {
    static WORKERS: OnceLock<Option<Arc<Workers>>> = OnceLock::new();
    let start = |program| Arc::new(Workers::new(program, [worker::ARGUMENT, "sql"]));
    WORKERS.get_or_init(|| worker::program().map(start)).clone()
}

/// The name of the generated world.
const WORLD: &str = "mini-spider";

impl From<leyden_spider::loader::Loaded> for LoadedTasks {
    fn from(loaded: leyden_spider::loader::Loaded) -> Self {
        let rejected = loaded.rejected.iter().map(ToString::to_string).collect();
        let notes = loaded.databases.iter().map(ToString::to_string).collect();
        Self { tasks: loaded.tasks, rejected, notes }
    }
}

/// Spider with its files and its world.
struct Prepared {
    settings: leyden_sql::SqlSettings,
    /// Folder of the databases, if configured.
    databases: Option<PathBuf>,
    /// The folder of the files read so far.
    opened: RefCell<Option<(PathBuf, Arc<Spider>)>>,
    /// Unusable databases of the file that was read last.
    unusable: RefCell<Vec<UnusableDatabase>>,
    seed: u64,
    gold: bool,
    reward: Reward,
    /// Created on first use: questions from files do not need it.
    world: OnceCell<Arc<MiniSpider>>,
}

impl Prepared {
    fn new(settings: &BenchmarkSettings) -> Result<Self> {
        let reward = Reward::of(settings, &[])?;
        let agent = &settings.agent;
        let check = match settings.text(CHECK)? {
            "model" => Check::Model,
            "execution" => Check::Execution,
            other => bail!("{CHECK}: `{other}`: use model or execution"),
        };
        let mut own = leyden_sql::SqlSettings {
            prompt: if settings.compact()? { Prompt::Compact } else { Prompt::Full },
            check,
            max_turns: agent.max_turns,
            process_reward: settings.real(PROCESS_REWARD)?,
            ..leyden_sql::SqlSettings::default()
        };
        if agent.result_characters > 0 {
            own.result_characters = agent.result_characters;
        }
        let databases = settings.text(DATABASES)?;
        Ok(Self {
            reward,
            gold: settings.gold(),
            settings: own,
            databases: (!databases.is_empty()).then(|| PathBuf::from(databases)),
            opened: RefCell::new(None),
            unusable: RefCell::default(),
            seed: settings.data.seed,
            world: OnceCell::new(),
        })
    }

    fn mini(&self) -> &Arc<MiniSpider> {
        self.world.get_or_init(|| Arc::new(MiniSpider::new(self.seed)))
    }

    /// Writes the databases of the world to a temporary folder, which must outlive their use.
    fn world_databases(&self) -> Result<(tempfile::TempDir, Arc<Spider>)> {
        let folder = tempfile::tempdir().context("no temporary folder for databases")?;
        self.mini().write_databases(folder.path())?;
        let spider = Spider::open(folder.path(), Limits::default())?.with_workers(workers());
        let spider = Arc::new(spider);
        Ok((folder, spider))
    }

    /// The Spider folder that a file of questions belongs to.
    fn open(&self, path: &Path) -> Result<Arc<Spider>> {
        let folder = databases_of(path, self.databases.as_deref());
        self.opened(folder, |folder| {
            Ok(Spider::open(folder, Limits::default())?.with_workers(workers()))
        })
    }

    /// Reads a user's own tasks: `question`, `query`, and the path of a `database`, as given or
    /// relative to the file's folder.
    fn read_own(&self, path: &Path) -> Result<LoadedTasks> {
        let by_file = PathBuf::from("database files");
        let spider = self
            .opened(by_file, |_| Ok(Spider::of_files(Limits::default()).with_workers(workers())))?;
        own_tasks::read(path, |mut row, _| {
            let named = PathBuf::from(required(&mut row, "database")?);
            let relative = path.parent().unwrap_or(Path::new("")).join(&named);
            let file = if named.is_file() { named } else { relative };
            let unfit = |what: String| RowError::Unfit(what);
            let file = std::path::absolute(&file).map_err(|error| unfit(error.to_string()))?;
            let database = spider.databases().add(&file).map_err(|e| unfit(e.to_string()))?;
            // Without rows, any query with an empty result would be right.
            if !database.has_rows() {
                return Err(unfit(format!("the database {} has no rows", file.display())));
            }
            let mut task = own_tasks::task(row, "query")?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            task.labels.push(("database".to_owned(), name));
            task.fields.insert(DATABASE_FIELD.to_owned(), database.id().into());
            Ok(task)
        })
    }

    /// Opens the databases of a run; all its questions must share one folder.
    fn opened(
        &self,
        folder: PathBuf,
        open: impl FnOnce(&Path) -> Result<Spider>,
    ) -> Result<Arc<Spider>> {
        let mut opened = self.opened.borrow_mut();
        match &*opened {
            Some((known, spider)) if *known == folder => Ok(Arc::clone(spider)),
            Some((known, _)) => bail!(
                "{} and {}: questions of one run share one folder of databases; set it as \
                 data.databases",
                known.display(),
                folder.display()
            ),
            None => {
                let spider = Arc::new(open(&folder)?);
                *opened = Some((folder, Arc::clone(&spider)));
                Ok(spider)
            }
        }
    }
}

impl World for MiniSpider {
    fn train(&self, index: u64) -> Task {
        MiniSpider::train(self, index)
    }

    fn test(&self, count: usize) -> Vec<Task> {
        MiniSpider::test(self, count)
    }

    fn write(&self, out: &Path, train: u64, test: usize) -> Result<Vec<Entries>> {
        MiniSpider::write(self, out, train, test)?;
        let databases = self.databases().len();
        Ok(vec![
            ("train.json", train as usize, "task"),
            ("dev.json", test, "task"),
            ("tables.json", databases, "schema"),
            ("database", databases, "database"),
        ])
    }
}

impl Dataset for Prepared {
    fn world(&self, name: &str) -> Option<Arc<dyn World>> {
        (name == WORLD).then(|| Arc::clone(self.mini()) as Arc<dyn World>)
    }

    fn read(&self, path: &Path) -> Result<LoadedTasks> {
        // Without rows, any query with an empty result would be right.
        let fields = Fields::of(path)?;
        if fields.has("database") && !fields.has(DATABASE_FIELD) {
            return self.read_own(path);
        }
        let spider = self.open(path)?;
        let loaded = if parquet::is_parquet(path) {
            spider.load_rows(parquet::rows(path)?, path, WithoutRows::LeaveOut)
        } else {
            spider.load(path, WithoutRows::LeaveOut)?
        };
        self.unusable.borrow_mut().clone_from(&loaded.databases);
        Ok(loaded.into())
    }

    fn assemble(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Assembled> {
        let opened = self.opened.borrow().clone();
        let of_world = |tasks: &[Task]| {
            tasks.iter().any(|task| task.fields.get("source") == Some(&json!(WORLD)))
        };
        let (spider, folder, mut described) = match opened {
            Some((folder, spider)) => {
                if matches!(train, Train::World(_)) || of_world(test) {
                    bail!("data: {WORLD} and files of Spider cannot be mixed");
                }
                (spider, None, json!({ "databases": folder.display().to_string() }))
            }
            None => {
                let (folder, spider) = self.world_databases()?;
                (spider, Some(folder), json!({ "databases": WORLD }))
            }
        };
        let agent = SqlAgent::new(Arc::clone(&spider), self.settings.clone());
        let world = demonstrations::WorldOptions {
            gold: self.gold,
            checks: self.settings.check == Check::Model,
        };
        let shown = || demonstrations::of(train, || Arc::clone(self.mini()), &agent, world);
        let demonstrations = demonstrated.then(shown);
        let scorer = self.reward.scorer(|_| Arc::new(SpiderScorer::new(spider)))?;
        if !self.reward.is_own() {
            described["reward"] = self.reward.described();
        }
        let extras = Arc::new(Databases(agent.clone()));
        Ok(Assembled { agent: Arc::new(agent), scorer, demonstrations, described, folder, extras })
    }

    fn describe(&self, name: &str, tasks: &[Task]) -> Result<Description> {
        let opened = self.opened.borrow().clone();
        let (_folder, spider) = match opened {
            Some((_, spider)) => (None, spider),
            None => {
                let (folder, spider) = self.world_databases()?;
                (Some(folder), spider)
            }
        };
        Ok(describe::describe(name, tasks, &spider, &self.unusable.borrow()))
    }
}

/// The database of each task for external agents: its file as `database`, and its description
/// from the native agent's prompts as `schema`.
struct Databases(SqlAgent);

impl Extras for Databases {
    fn fields(&self, task: &Task, _: &str) -> Result<Map<String, Value>, String> {
        let (path, schema) = self.0.database_of(task).map_err(|error| error.to_string())?;
        let mut fields = Map::new();
        fields.insert("database".to_owned(), path.display().to_string().into());
        fields.insert("schema".to_owned(), schema.into());
        Ok(fields)
    }
}
