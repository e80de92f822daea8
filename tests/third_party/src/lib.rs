//! An example of a third-party benchmark: an agent, tasks and a scorer.
//!
//! The agent asks the model to write something with a letter in it; the reward is the share of
//! vowels in the output. There is little to learn, but any model gets varying rewards.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, Score, ScoreError, Scorer, Task,
    async_trait,
};
use leyden_suite::benchmark::{Entries, GeneratedWorld, LoadedTasks, World};
use leyden_suite::{Assembled, Benchmark, BenchmarkSettings, Dataset, Registry, Train, own_tasks};
use leyden_train::config::{OwnKey, Preset};
use serde_json::Map;

/// The benchmark, as passed to `leyden_cli::main`.
pub struct Vowels;

const WORLD: &str = "mini-vowels";
const GREETING: &str = "agent.greeting";

impl Benchmark for Vowels {
    fn name(&self) -> &'static str {
        "vowels"
    }

    fn what(&self) -> &'static str {
        "many vowels"
    }

    fn keys(&self) -> Vec<OwnKey> {
        let what = "vowels: the start of the prompt";
        vec![OwnKey::new(GREETING, Preset::Text("write"), what).flag("greeting", "TEXT")]
    }

    fn reward(&self) -> &'static str {
        "share of vowels"
    }

    fn prepare(&self, settings: BenchmarkSettings, _: &Registry) -> Result<Box<dyn Dataset>> {
        settings.only_default_reward()?;
        let greeting = settings.text(GREETING)?.to_owned();
        if greeting.is_empty() {
            bail!("{GREETING}: must not be empty");
        }
        Ok(Box::new(Prepared { greeting }))
    }

    fn worlds(&self) -> Vec<GeneratedWorld> {
        vec![GeneratedWorld::new(WORLD, |_| Arc::new(Letters))]
    }
}

/// One task per letter, repeated endlessly.
struct Letters;

impl Letters {
    fn task(id: String, index: u64) -> Task {
        let letter = char::from(b'a' + (index % 26) as u8);
        Task {
            id,
            question: format!("something with {letter}"),
            gold: letter.to_string(),
            labels: vec![("letter".to_owned(), letter.to_string())],
            fields: Map::new(),
        }
    }
}

impl World for Letters {
    fn train(&self, index: u64) -> Task {
        Self::task(format!("{WORLD}/train/{index}"), index)
    }

    fn test(&self, count: usize) -> Vec<Task> {
        (0..count as u64).map(|index| Self::task(format!("{WORLD}/test/{index}"), index)).collect()
    }

    fn write(&self, _: &Path, _: u64, _: usize) -> Result<Vec<Entries>> {
        bail!("{WORLD}: cannot be written to files")
    }
}

struct Prepared {
    greeting: String,
}

impl Dataset for Prepared {
    fn world(&self, name: &str) -> Option<Arc<dyn World>> {
        (name == WORLD).then(|| Arc::new(Letters) as Arc<dyn World>)
    }

    fn read(&self, path: &Path) -> Result<LoadedTasks> {
        own_tasks::read(path, |row, _| own_tasks::task(row, "answer"))
    }

    fn assemble(&self, _: Train<'_>, _: &[Task], demonstrated: bool) -> Result<Assembled> {
        if demonstrated {
            bail!("train.objective: this benchmark has no demonstrations");
        }
        Ok(Assembled::of(Writer { greeting: self.greeting.clone() }, ShareOfVowels))
    }
}

/// Calls the model once and returns its output.
struct Writer {
    greeting: String,
}

#[async_trait]
impl Agent for Writer {
    fn name(&self) -> &str {
        "vowels"
    }

    fn roles(&self) -> &[&str] {
        &["write"]
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let request = ChatRequest {
            agent_role: "write".to_owned(),
            messages: vec![Message::user(format!("{} {}", self.greeting, task.question))],
            ..ChatRequest::default()
        };
        Ok(AgentOutput::of(Some(episode.chat(request).await?.message.content)))
    }
}

struct ShareOfVowels;

impl Scorer for ShareOfVowels {
    fn score(&self, _: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        let answer = answer.unwrap_or_default();
        let vowels = answer.chars().filter(|c| "aeiou".contains(*c)).count();
        let reward = vowels as f64 / answer.chars().count().max(1) as f64;
        Ok(Score { reward, parts: BTreeMap::from([("vowels", vowels as f64)]) })
    }
}
