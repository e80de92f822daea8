//! The text-to-SQL agent on Spider and mini-spider.

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::{Message, SeedTree, Task};
use leyden_mini::MiniSpider;
use leyden_mini::spider::{Noise, Turn};
use leyden_spider::loader::WithoutRows;
use leyden_spider::{Limits, Spider, SpiderScorer};
use leyden_sql::{Check, Prompt, SqlAgent};
use leyden_suite::external::Extras;
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::{Map, Value, json};

use super::script::play;
use super::{Cast, Dataset, Rows, Settings, Train, World, databases_of, lesson};

/// Spider, its files and its world.
pub struct Sql {
    settings: leyden_sql::Settings,
    /// Where the databases are, if somebody said so.
    databases: Option<PathBuf>,
    /// The folder of the files read so far.
    opened: RefCell<Option<(PathBuf, Arc<Spider>)>>,
    seed: u64,
    gold: bool,
    /// Made when it is first asked for: questions of files need none.
    world: OnceCell<Arc<MiniSpider>>,
}

impl Sql {
    pub fn new(settings: Settings) -> Result<Self> {
        settings.only_default_reward()?;
        let agent = &settings.agent;
        let check = match agent.check.as_str() {
            "model" => Check::Model,
            "execution" => Check::Execution,
            other => bail!("agent.check: `{other}`: use model or execution"),
        };
        let mut own = leyden_sql::Settings {
            prompt: if settings.compact()? { Prompt::Compact } else { Prompt::Full },
            check,
            max_turns: agent.max_turns,
            ..leyden_sql::Settings::default()
        };
        if agent.result_characters > 0 {
            own.result_characters = agent.result_characters;
        }
        let databases = &settings.data.databases;
        Ok(Self {
            gold: settings.gold(),
            settings: own,
            databases: (!databases.is_empty()).then(|| PathBuf::from(databases)),
            opened: RefCell::new(None),
            seed: settings.data.seed,
            world: OnceCell::new(),
        })
    }

    fn mini(&self) -> &Arc<MiniSpider> {
        self.world.get_or_init(|| Arc::new(MiniSpider::new(self.seed)))
    }

    /// The Spider folder that a file of questions belongs to.
    fn open(&self, path: &Path) -> Result<Arc<Spider>> {
        let folder = databases_of(path, self.databases.as_deref());
        let mut opened = self.opened.borrow_mut();
        match &*opened {
            Some((known, spider)) if *known == folder => Ok(Arc::clone(spider)),
            Some((known, _)) => bail!(
                "{} and {}: questions of one run share one folder of databases; name it as \
                 data.databases",
                known.display(),
                folder.display()
            ),
            None => {
                let spider = Arc::new(Spider::open(&folder, Limits::default())?);
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
}

impl Dataset for Sql {
    fn world_name(&self) -> &'static str {
        "mini-spider"
    }

    fn world(&self) -> Arc<dyn World> {
        Arc::clone(self.mini()) as Arc<dyn World>
    }

    fn read(&self, path: &Path) -> Result<Rows> {
        // Without rows any query that finds nothing would be right.
        Ok(self.open(path)?.load(path, WithoutRows::LeaveOut)?.into())
    }

    fn cast(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Cast> {
        let opened = self.opened.borrow().clone();
        let of_world = |tasks: &[Task]| {
            tasks.iter().any(|task| task.fields.get("source") == Some(&json!("mini-spider")))
        };
        let (spider, folder, described) = match opened {
            Some((folder, spider)) => {
                if matches!(train, Train::World) || of_world(test) {
                    bail!("data: mini-spider and files of Spider cannot be mixed");
                }
                (spider, None, json!({ "databases": folder.display().to_string() }))
            }
            None => {
                let folder = tempfile::tempdir().context("no temporary folder for databases")?;
                self.mini().write_databases(folder.path())?;
                let spider = Arc::new(Spider::open(folder.path(), Limits::default())?);
                (spider, Some(folder), json!({ "databases": "mini-spider" }))
            }
        };
        let agent = SqlAgent::new(Arc::clone(&spider), self.settings.clone());
        let demonstrations: Option<Box<dyn DemonstrationSource>> = match train {
            _ if !demonstrated => None,
            Train::World => Some(Box::new(OfTheWorld {
                world: Arc::clone(self.mini()),
                agent: agent.clone(),
                gold: self.gold,
                checks: self.settings.check == Check::Model,
            })),
            Train::Tasks(tasks) => {
                Some(Box::new(Gold { tasks: tasks.to_vec(), agent: agent.clone() }))
            }
        };
        let scorer = Arc::new(SpiderScorer::new(spider));
        let extras = Arc::new(Databases(agent.clone()));
        Ok(Cast { agent: Arc::new(agent), scorer, demonstrations, described, folder, extras })
    }
}

/// The database of each task, for agents outside of this process: the path of its file as
/// `database`, what the native agent's prompts say of it as `schema`.
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

fn block(query: &str) -> Message {
    Message::assistant(format!("```sql\n{query}\n```"))
}

/// The reference query as the first one, for tasks of files.
struct Gold {
    tasks: Vec<Task>,
    agent: SqlAgent,
}

impl DemonstrationSource for Gold {
    fn len(&self) -> Option<u64> {
        Some(self.tasks.len() as u64)
    }

    fn conversation(&self, index: u64) -> Conversation {
        let task = &self.tasks[index as usize];
        let played = play(&self.agent, task, vec![block(&task.gold)]);
        played.into_iter().next().unwrap_or_default()
    }
}

/// Either the training tasks of mini-spider with their queries, or what its base model is
/// raised on: queries right choice by choice, some of the time, and verdicts little better than
/// chance (see [`leyden_mini::spider::Noise`]).
struct OfTheWorld {
    world: Arc<MiniSpider>,
    agent: SqlAgent,
    gold: bool,
    checks: bool,
}

impl DemonstrationSource for OfTheWorld {
    fn len(&self) -> Option<u64> {
        None
    }

    /// One call of a demonstrated rollout: each is a conversation of its own.
    fn conversation(&self, index: u64) -> Conversation {
        let seed = SeedTree::new(index).child("noise");
        let noise = if self.gold { Noise::none() } else { Noise::default() };
        let shown = self.world.demonstration(lesson(self.gold, index), &noise, seed);
        let reply = |turn: &Turn| match turn {
            Turn::Write { query } | Turn::Rewrite { query } => Some(block(query)),
            Turn::Check { .. } if !self.checks => None,
            Turn::Check { correct: true } => Some(Message::assistant("VERDICT: CORRECT")),
            Turn::Check { correct: false } => Some(Message::assistant("VERDICT: INCORRECT")),
        };
        let replies: Vec<Message> = shown.turns.iter().filter_map(reply).collect();
        let mut played = play(&self.agent, &shown.task, replies);
        // Half of the lessons are first queries, from which the others differ little.
        let call = match played.len() {
            0 => return Conversation::default(),
            1 => 0,
            _ if index.is_multiple_of(2) => 0,
            calls => 1 + (index / 2) as usize % (calls - 1),
        };
        played.swap_remove(call)
    }
}
