//! The text-to-SQL agent on Spider and mini-spider.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use leyden_core::{Message, SeedTree, Task};
use leyden_mini::MiniSpider;
use leyden_mini::spider::{Noise, Turn};
use leyden_spider::loader::WithoutRows;
use leyden_spider::{Limits, Spider, SpiderScorer};
use leyden_sql::{Check, Prompt, SqlAgent};
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::json;

use super::script::play;
use super::{Cast, Dataset, FIRST_LESSON, Rows, Settings, Train, World};

/// Spider, its files and its world.
pub struct Sql {
    settings: leyden_sql::Settings,
    /// Where the databases are, if somebody said so.
    databases: Option<PathBuf>,
    /// The folder of the files read so far.
    opened: Mutex<Option<(PathBuf, Arc<Spider>)>>,
    world: Arc<MiniSpider>,
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
            settings: own,
            databases: (!databases.is_empty()).then(|| PathBuf::from(databases)),
            opened: Mutex::new(None),
            world: Arc::new(MiniSpider::new(settings.data.seed)),
        })
    }

    /// The Spider folder that a file of questions belongs to.
    fn open(&self, path: &Path) -> Result<Arc<Spider>> {
        let beside = || path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = match &self.databases {
            Some(folder) => folder.clone(),
            None => beside().unwrap_or(Path::new(".")).to_owned(),
        };
        let mut opened = self.opened.lock().unwrap_or_else(|e| e.into_inner());
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
        Arc::clone(&self.world) as Arc<dyn World>
    }

    fn read(&self, path: &Path) -> Result<Rows> {
        // Without rows any query that finds nothing would be right.
        Ok(self.open(path)?.load(path, WithoutRows::LeaveOut)?.into())
    }

    fn cast(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Cast> {
        let opened = self.opened.lock().unwrap_or_else(|e| e.into_inner()).clone();
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
                self.world.write_databases(folder.path())?;
                let spider = Arc::new(Spider::open(folder.path(), Limits::default())?);
                (spider, Some(folder), json!({ "databases": "mini-spider" }))
            }
        };
        let agent = SqlAgent::new(Arc::clone(&spider), self.settings.clone());
        let demonstrations: Option<Box<dyn DemonstrationSource>> = match train {
            _ if !demonstrated => None,
            Train::World => Some(Box::new(Noisy {
                world: Arc::clone(&self.world),
                agent: agent.clone(),
                checks: self.settings.check == Check::Model,
            })),
            Train::Tasks(tasks) => {
                Some(Box::new(Gold { tasks: tasks.to_vec(), agent: agent.clone() }))
            }
        };
        let scorer = Arc::new(SpiderScorer::new(spider));
        Ok(Cast { agent: Arc::new(agent), scorer, demonstrations, described, folder })
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
        played.into_iter().next().unwrap_or_else(nothing)
    }
}

/// What the base model of mini-spider is raised on: queries right choice by choice, some of
/// the time, and verdicts little better than chance (see [`leyden_mini::spider::Noise`]).
struct Noisy {
    world: Arc<MiniSpider>,
    agent: SqlAgent,
    checks: bool,
}

impl DemonstrationSource for Noisy {
    fn len(&self) -> Option<u64> {
        None
    }

    /// One call of a demonstrated rollout: each is a conversation of its own.
    fn conversation(&self, index: u64) -> Conversation {
        let seed = SeedTree::new(index).child("noise");
        let shown = self.world.demonstration(FIRST_LESSON + index, &Noise::default(), seed);
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
            0 => return nothing(),
            1 => 0,
            _ if index.is_multiple_of(2) => 0,
            calls => 1 + (index / 2) as usize % (calls - 1),
        };
        played.swap_remove(call)
    }
}

/// Where the agent could not even ask: refused as a demonstration without a turn to learn.
fn nothing() -> Conversation {
    Conversation { messages: Vec::new(), tools: Vec::new() }
}
