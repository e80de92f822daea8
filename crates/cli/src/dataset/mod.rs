//! The three agents with their datasets: who works on what, who judges, who demonstrates.
//!
//! A dataset is known by its agent's name. Its tasks come from files or from the generated
//! world of the same kind; once they are read, they are cast: the agent, the scorer and,
//! where a model is to imitate them, demonstrations, all over the same databases or corpus.

mod calc;
mod external;
mod rag;
mod retriever;
mod script;
mod sql;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_core::rows::{LoadError, Loaded};
use leyden_core::{Agent, Scorer, Task};
use leyden_hub::parquet;
use leyden_mini::names::NamesAgain;
use leyden_suite::external::Extras;
use leyden_train::Experiment;
use leyden_train::config::{
    AgentConfig, DataConfig, Demonstrations, RetrievalConfig, RewardConfig,
};
use leyden_train::data::{Conversation, DemonstrationSource, TaskSource};
use rag::Copying;
use serde_json::Value;

/// Tasks of a generated test split where nobody says how many.
pub const TEST_TASKS: usize = 256;

/// Tasks of base models begin here in a world's stream: runs from its start never meet them.
const FIRST_LESSON: u64 = 1 << 40;

/// The task of a world's stream that demonstration `index` is about: the one that a run meets as
/// that number, if it is `gold`.
fn lesson(gold: bool, index: u64) -> u64 {
    if gold { index } else { FIRST_LESSON + index }
}

/// A generated world: an endless stream of training tasks, and test tasks apart from them.
pub trait World: Send + Sync {
    fn train(&self, index: u64) -> Task;

    fn test(&self, count: usize) -> Vec<Task>;
}

/// What a file gave: its tasks, and sentences on the rows that were left out.
#[derive(Default)]
pub struct Rows {
    pub tasks: Vec<Task>,
    pub rejected: Vec<String>,
    /// What else a reader should know, such as databases that cannot be used.
    pub notes: Vec<String>,
}

/// The rows of a file, by a dataset's readers: of its own format, and of the hub's Parquet.
fn read_rows(
    path: &Path,
    from_file: impl FnOnce(&Path) -> Result<Loaded, LoadError>,
    from_rows: impl FnOnce(parquet::Rows, &str) -> Loaded,
) -> Result<Rows> {
    let loaded = if parquet::is_parquet(path) {
        from_rows(parquet::rows(path)?, &path.display().to_string())
    } else {
        from_file(path)?
    };
    Ok(loaded.into())
}

/// Where the training tasks come from.
#[derive(Clone, Copy)]
pub enum Train<'a> {
    World,
    Tasks(&'a [Task]),
}

/// A dataset with everything that plays on it.
pub struct Cast {
    pub agent: Arc<dyn Agent>,
    pub scorer: Arc<dyn Scorer>,
    /// Of the training tasks, if they were asked for.
    pub demonstrations: Option<Box<dyn DemonstrationSource>>,
    /// What else is in play (databases, corpus, index), for the provenance.
    pub described: Value,
    /// Files of a generated world, kept as long as it is played in.
    pub folder: Option<tempfile::TempDir>,
    /// What agents outside of this process need besides the task.
    pub extras: Arc<dyn Extras>,
}

/// A dataset as runs and commands use it.
pub trait Dataset {
    /// The name of its generated world.
    fn world_name(&self) -> &'static str;

    fn world(&self) -> Arc<dyn World>;

    /// Reads a file in the dataset's own format.
    ///
    /// # Errors
    /// Where the file as a whole cannot be read; bad rows are in the result.
    fn read(&self, path: &Path) -> Result<Rows>;

    /// Brings in who plays on the tasks that were read.
    ///
    /// # Errors
    /// Settings that make no sense, a corpus that cannot be searched, no task that can be
    /// demonstrated.
    fn cast(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Cast>;
}

/// The names of the agents, with those of their worlds.
pub const AGENTS: [(&str, &str); 3] =
    [("calc", "mini-calc"), ("sql", "mini-spider"), ("rag", "mini-musique")];

/// The agent that lives in a world.
pub fn agent_of(world: &str) -> Option<&'static str> {
    AGENTS.iter().find(|(_, known)| *known == world).map(|(agent, _)| *agent)
}

/// The folder of `tables.json` and the databases that a file of Spider's questions is about:
/// `databases` if somebody said so, else where the questions are.
pub fn databases_of(questions: &Path, databases: Option<&Path>) -> PathBuf {
    let beside = questions.parent().filter(|parent| !parent.as_os_str().is_empty());
    databases.or(beside).unwrap_or(Path::new(".")).to_owned()
}

/// What a dataset needs to know of an experiment.
#[derive(Debug, Clone)]
pub struct Settings {
    pub agent: AgentConfig,
    pub data: DataConfig,
    pub retrieval: RetrievalConfig,
    pub reward: RewardConfig,
    /// Where encoders of passages run.
    pub device: String,
    /// Folder of the run, where there is one.
    pub run: Option<PathBuf>,
}

impl Settings {
    pub fn of(experiment: &Experiment) -> Self {
        Self {
            agent: experiment.agent.clone(),
            data: experiment.data.clone(),
            retrieval: experiment.retrieval.clone(),
            reward: experiment.reward.clone(),
            device: experiment.model.device.clone(),
            run: None,
        }
    }

    /// Whether a generated world shows its training tasks solved.
    fn gold(&self) -> bool {
        self.data.demonstrations == Demonstrations::Gold
    }

    /// How much the agent's prompts explain: whether only one line.
    fn compact(&self) -> Result<bool> {
        match self.agent.prompt.as_str() {
            "full" => Ok(false),
            "compact" => Ok(true),
            other => bail!("agent.prompt: `{other}`: use full or compact"),
        }
    }

    /// Refuses a reward that the dataset does not have.
    fn only_default_reward(&self) -> Result<()> {
        match self.reward.name.as_str() {
            "default" => Ok(()),
            other => bail!(
                "reward.name: the agent {} has no reward `{other}`; use default",
                self.agent.name
            ),
        }
    }
}

/// The dataset of the agent that `settings` name.
///
/// # Errors
/// Where there is no such agent.
pub fn of(settings: Settings) -> Result<Box<dyn Dataset>> {
    match settings.agent.name.as_str() {
        "calc" => Ok(Box::new(calc::Calc::new(settings)?)),
        "sql" => Ok(Box::new(sql::Sql::new(settings)?)),
        "rag" => Ok(Box::new(rag::Rag::new(settings)?)),
        "external" => Ok(Box::new(external::External::new(settings)?)),
        other => {
            bail!("agent.name: there is no agent `{other}`; there are calc, sql, rag and external")
        }
    }
}

/// The endless stream of a world as the tasks of a run.
pub struct Stream(pub Arc<dyn World>);

impl TaskSource for Stream {
    fn len(&self) -> Option<u64> {
        None
    }

    fn task(&self, index: u64) -> Task {
        self.0.train(index)
    }
}

/// Demonstrations of several endless sources in turn, after some exercises in copying. With
/// any at all, every round ends with one more, so that what they teach is not unlearned.
pub struct InTurn {
    exercises: Copying,
    /// So many exercises come first.
    first: u64,
    sources: Vec<Box<dyn DemonstrationSource>>,
    /// Whose turn it is, round by round; a source may have several turns of a round.
    turns: Vec<usize>,
}

impl InTurn {
    pub fn new(
        sources: Vec<Box<dyn DemonstrationSource>>,
        turns: Vec<usize>,
        seed: u64,
        first: u64,
    ) -> Self {
        Self { exercises: Copying(NamesAgain::new(seed)), first, sources, turns }
    }

    /// The source of item `index` after the first exercises, and which of that source's items
    /// it is; no source where the turn is an exercise's.
    fn place(&self, index: u64) -> (Option<usize>, u64) {
        let exercise = u64::from(self.first > 0);
        let round = self.turns.len() as u64 + exercise;
        let slot = (index % round) as usize;
        let Some(&source) = self.turns.get(slot) else {
            return (None, self.first + index / round);
        };
        let count = |turns: &[usize]| turns.iter().filter(|&&turn| turn == source).count() as u64;
        (Some(source), index / round * count(&self.turns) + count(&self.turns[..slot]))
    }
}

impl DemonstrationSource for InTurn {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let Some(index) = index.checked_sub(self.first) else {
            return self.exercises.conversation(index);
        };
        match self.place(index) {
            (Some(source), item) => self.sources[source].conversation(item),
            (None, exercise) => self.exercises.conversation(exercise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    #[test]
    fn gold_demonstrations_solve_the_tasks_that_a_run_meets() {
        for (agent, _) in AGENTS {
            let mut settings = tiny::settings(agent, 0);
            settings.data.demonstrations = Demonstrations::Gold;
            let dataset = of(settings).unwrap();
            let cast = dataset.cast(Train::World, &[], true).unwrap();
            let (world, shown) = (dataset.world(), cast.demonstrations.unwrap());
            for index in 0..20 {
                let task = world.train(index);
                let messages = shown.conversation(index).messages;
                let asked = messages.iter().any(|message| message.content.contains(&task.question));
                assert!(asked, "{agent}: task {index} is not shown: {messages:?}");
                // A query may be followed by its verdict; numbers are grouped by `_`.
                let plain = |text: &str| text.replace('_', "");
                let mut answered = messages.iter().rev().take(3);
                let right = answered.any(|m| plain(&m.content).contains(&plain(&task.gold)));
                assert!(right, "{agent}: {} is not the end of {messages:?}", task.gold);
            }
        }
    }

    #[test]
    fn a_source_with_two_turns_gives_twice_as_many_and_none_twice() {
        let in_turn = InTurn::new(Vec::new(), vec![0, 1, 0], 0, 0);
        let places: Vec<(Option<usize>, u64)> = (0..6).map(|i| in_turn.place(i)).collect();
        let (a, b) = (Some(0), Some(1));
        assert_eq!(places, [(a, 0), (b, 0), (a, 1), (a, 2), (b, 1), (a, 3)]);
    }

    #[test]
    fn exercises_come_first_and_one_ends_every_round() {
        let in_turn = InTurn::new(Vec::new(), vec![0], 0, 2);
        let places: Vec<(Option<usize>, u64)> = (0..4).map(|i| in_turn.place(i)).collect();
        assert_eq!(places, [(Some(0), 0), (None, 2), (Some(0), 1), (None, 3)]);
        let first: Vec<Conversation> = [0, 1, 3, 5].map(|i| in_turn.conversation(i)).into();
        for (number, conversation) in first.iter().enumerate() {
            let asked = &conversation.messages[0].content;
            assert!(asked.starts_with("draw from"), "{conversation:?}");
            assert!(first[..number].iter().all(|before| before.messages != conversation.messages));
        }
    }
}
