//! Single-turn question answering: the simplest agent, for a user's own tasks.
//!
//! It has no tools, no dataset and no world. The optional system prompt comes from a file; tasks
//! are lines of `id`, `question` and `answer` (see [`crate::own_tasks`]).

use std::path::Path;

use anyhow::{Context, Result};
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, Rollout, SignalKind, Task,
    async_trait,
};
use leyden_train::config::{OwnKey, Preset};
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::{Map, Value, json};

use crate::benchmark::{Assembled, Benchmark, Dataset, LoadedTasks, Train};
use crate::evaluation::Failure;
use crate::own_tasks;
use crate::registry::Registry;
use crate::reward::{Reward, Rule};
use crate::settings::BenchmarkSettings;

/// The single-turn agent.
pub struct Chat;

const SYSTEM: &str = "agent.chat.system";

/// The role of its only call.
pub const ROLE: &str = "answer";

impl Benchmark for Chat {
    fn name(&self) -> &'static str {
        "chat"
    }

    fn what(&self) -> &'static str {
        "one answer, no tool"
    }

    fn keys(&self) -> Vec<OwnKey> {
        vec![OwnKey::new(
            SYSTEM,
            Preset::Required,
            "chat: file with the system prompt; without [agent.chat] there is none",
        )]
    }

    fn reward(&self) -> &'static str {
        "exact match"
    }

    fn max_turns(&self) -> usize {
        1
    }

    fn prepare(&self, settings: BenchmarkSettings, _: &Registry) -> Result<Box<dyn Dataset>> {
        let system = match settings.agent.own.has_table("chat") {
            false => None,
            true => {
                let path = settings.text(SYSTEM)?;
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("{SYSTEM}: {path}"))?;
                Some((path.to_owned(), text.trim_end().to_owned()))
            }
        };
        let reward = Reward::of(&settings, &[])?;
        Ok(Box::new(Prepared { system, reward }))
    }

    fn failure(&self, rollout: &Rollout, reward: f64) -> Failure {
        match rollout.answer {
            Some(_) if reward > 0.0 => Failure::PartlyRight,
            _ => Failure::usual(rollout, rollout.answer.is_some()),
        }
    }
}

struct Prepared {
    /// Path and text of the system prompt.
    system: Option<(String, String)>,
    reward: Reward,
}

impl Dataset for Prepared {
    fn read(&self, path: &Path) -> Result<LoadedTasks> {
        own_tasks::read(path, |row, _| own_tasks::task(row, "answer"))
    }

    fn assemble(&self, train: Train<'_>, _: &[Task], demonstrated: bool) -> Result<Assembled> {
        let agent = ChatAgent { system: self.system.as_ref().map(|(_, text)| text.clone()) };
        let scorer = self.reward.scorer(|_| std::sync::Arc::new(Rule::Exact))?;
        let shown = || -> Box<dyn DemonstrationSource> {
            let tasks = match train {
                Train::World(_) => Vec::new(),
                Train::Tasks(tasks) => tasks.to_vec(),
            };
            Box::new(Answers { agent: agent.clone(), tasks })
        };
        let mut described = Map::new();
        if let Some((path, text)) = &self.system {
            let sha256 = leyden_train::provenance::hash(text.as_bytes());
            described.insert("system".to_owned(), json!({ "file": path, "sha256": sha256 }));
        }
        described.insert("reward".to_owned(), self.reward.described());
        Ok(Assembled {
            demonstrations: demonstrated.then(shown),
            described: Value::Object(described),
            scorer,
            ..Assembled::of(agent.clone(), Rule::Exact)
        })
    }
}

/// Calls its model once.
#[derive(Debug, Clone)]
pub struct ChatAgent {
    pub system: Option<String>,
}

impl ChatAgent {
    /// The messages before the answer.
    pub fn opening(&self, question: &str) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::system(text.clone()));
        system.chain([Message::user(question)]).collect()
    }
}

#[async_trait]
impl Agent for ChatAgent {
    fn name(&self) -> &str {
        "chat"
    }

    fn roles(&self) -> &[&str] {
        &[ROLE]
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let request = ChatRequest {
            agent_role: ROLE.to_owned(),
            messages: self.opening(&task.question),
            ..ChatRequest::default()
        };
        let answer = episode.chat(request).await?.message.content;
        if answer.trim().is_empty() {
            episode.signal(SignalKind::NoAnswer, "the reply is empty");
            return Ok(AgentOutput::of(None));
        }
        Ok(AgentOutput::of(Some(answer)))
    }
}

/// Demonstrations with the reference answers as replies.
struct Answers {
    agent: ChatAgent,
    tasks: Vec<Task>,
}

impl DemonstrationSource for Answers {
    fn len(&self) -> Option<u64> {
        Some(self.tasks.len() as u64)
    }

    fn conversation(&self, index: u64) -> Conversation {
        let task = &self.tasks[index as usize];
        let mut messages = self.agent.opening(&task.question);
        messages.push(Message::assistant(task.gold.clone()));
        Conversation { messages, tools: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use leyden_core::Script;

    use super::*;

    fn prepared(folder: &Path, system: &str) -> Result<Box<dyn Dataset>> {
        let registry = crate::registry();
        let path = folder.join("system.txt");
        std::fs::write(&path, system).unwrap();
        let text = format!(
            "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'chat'\n[agent.chat]\n\
             system = {path:?}\n[data]\ntrain = []\ntest = []\n[train]\nsteps = 1\n"
        );
        let file = Path::new("x.toml");
        let experiment = leyden_train::Experiment::parse(&text, file, &[], &registry)?;
        registry.prepare(BenchmarkSettings::of(&experiment))
    }

    #[test]
    fn the_model_gets_the_system_prompt_and_the_question() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("my.jsonl");
        let row =
            r#"{"id": 7, "question": "Capital of Italy?", "answer": "Rome", "topic": "cities"}"#;
        std::fs::write(&data, row).unwrap();
        let prepared = prepared(folder.path(), "Answer in one word.\n").unwrap();
        let tasks = prepared.read(&data).unwrap().tasks;
        assert_eq!((tasks[0].id.as_str(), tasks[0].label("topic")), ("7", Some("cities")));
        let assembled = prepared.assemble(Train::Tasks(&tasks), &[], true).unwrap();
        let script = Script::of_messages([Message::assistant(" Rome ")]);
        let episode = Episode::new(&script);
        let output = block_on(assembled.agent.run(&tasks[0], &episode)).unwrap();
        let score = assembled.scorer.score(&tasks[0], output.answer.as_deref()).unwrap();
        assert_eq!(score.reward, 1.0);
        drop(episode);
        let requests = script.into_requests();
        let texts: Vec<&str> = requests[0].messages.iter().map(|m| m.content.as_str()).collect();
        assert_eq!(texts, ["Answer in one word.", "Capital of Italy?"]);
        let shown = assembled.demonstrations.unwrap().conversation(0).messages;
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[2].content, "Rome");
    }

    #[test]
    fn an_empty_reply_is_no_answer() {
        let agent = ChatAgent { system: None };
        let script = Script::of_messages([Message::assistant(" ")]);
        let episode = Episode::new(&script);
        let task = own_tasks::task(
            json!({ "id": "a", "question": "q", "answer": "x" }).as_object().unwrap().clone(),
            "answer",
        )
        .unwrap();
        let output = block_on(agent.run(&task, &episode)).unwrap();
        assert_eq!(output, AgentOutput::of(None));
        assert_eq!(episode.into_signals()[0].kind, SignalKind::NoAnswer);
    }

    #[test]
    fn errors_name_a_missing_system_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        let error = prepared(folder.path(), "x").map(drop);
        assert!(error.is_ok());
        std::fs::write(folder.path().join("system.txt"), b"\xff\xfe").unwrap();
        let registry = crate::registry();
        for path in [missing, folder.path().join("system.txt")] {
            let text = format!(
                "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'chat'\nchat = {{ system \
                 = {path:?} }}\n[data]\ntrain = []\ntest = []\n[train]\nsteps = 1\n"
            );
            let file = Path::new("x.toml");
            let error = leyden_train::Experiment::parse(&text, file, &[], &registry);
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("x.toml: agent.chat.system: "), "{error}");
        }
    }
}
