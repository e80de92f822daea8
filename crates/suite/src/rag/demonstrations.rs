//! Demonstrations of searches and answers: solutions, and pretraining data of mini-musique.

use std::sync::Arc;

use anyhow::{Result, bail};
use leyden_core::{Message, Passage, SeedTree, Task, ToolCall};
use leyden_mini::MiniMusique;
use leyden_mini::musique::{Noise, Paraphrase, Read, Turn, answer_form};
use leyden_rag::{Options, RagAgent, TOOL, render, spec};
use leyden_retrieval::{Hit, Retriever};
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::{Value, json};

use crate::demonstrations::task_index;
use crate::script::play;

/// What the demonstrations of a world are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Solutions,
    /// Rollouts in which each choice is correct some of the time.
    Attempts,
    /// Attempts and paraphrased passages, alternating.
    AttemptsAndParaphrases,
}

/// Demonstrations of the world that search with `retriever`.
pub fn of_world(
    world: Arc<MiniMusique>,
    agent: RagAgent,
    shown: Shown,
    retriever: Arc<dyn Retriever>,
    options: &Options,
) -> Box<dyn DemonstrationSource> {
    let (gold, paraphrases) = (shown == Shown::Solutions, shown == Shown::AttemptsAndParaphrases);
    let (passages, length) = (options.passages, options.passage_length);
    Box::new(WorldDemonstrations { world, agent, gold, paraphrases, retriever, passages, length })
}

/// Demonstrations of tasks.
///
/// # Errors
/// No task has a decomposition.
pub fn of_tasks(tasks: &[Task], agent: RagAgent) -> Result<Box<dyn DemonstrationSource>> {
    Ok(Box::new(Decomposed::of(tasks, agent)?))
}

/// A search call of the model.
fn search(number: usize, query: &str) -> Message {
    let mut message = Message::assistant("");
    message.tool_calls.push(ToolCall {
        id: format!("call_{number}"),
        name: TOOL.to_owned(),
        arguments: json!({ "query": query }),
    });
    message
}

/// The complete conversation of a rollout: that of its last call.
fn whole(agent: &RagAgent, task: &Task, replies: Vec<Message>) -> Conversation {
    play(agent, task, replies).pop().unwrap_or_default()
}

/// The single-hop questions of each task as its searches, then its answer.
struct Decomposed {
    agent: RagAgent,
    tasks: Vec<(Task, Vec<Message>)>,
}

impl Decomposed {
    fn of(tasks: &[Task], agent: RagAgent) -> Result<Self> {
        let shown = |task: &Task| Some((task.clone(), replies(task)?));
        let shown: Vec<_> = tasks.iter().filter_map(shown).collect();
        if shown.len() < tasks.len() {
            let without = tasks.len() - shown.len();
            eprintln!(
                "demonstrations: {without} of {} tasks skipped: no decomposition",
                tasks.len()
            );
        }
        if shown.is_empty() {
            bail!("data.train: no task has a decomposition that can be demonstrated");
        }
        Ok(Self { agent, tasks: shown })
    }
}

/// One search per single-hop question, with `#1` replaced by the first one's answer, and the
/// final answer.
fn replies(task: &Task) -> Option<Vec<Message>> {
    let hops = task.fields.get("question_decomposition").and_then(Value::as_array)?;
    let mut answers: Vec<&str> = Vec::new();
    let mut replies = Vec::new();
    for hop in hops {
        let mut query = hop.get("question")?.as_str()?.replace(">>", "");
        // In reverse order, so that `#1` does not match in `#12`.
        for (number, answer) in answers.iter().enumerate().rev() {
            query = query.replace(&format!("#{}", number + 1), answer);
        }
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        replies.push(search(replies.len(), &query));
        answers.push(hop.get("answer")?.as_str()?);
    }
    if replies.is_empty() {
        return None;
    }
    replies.push(Message::assistant(format!("<answer>{}</answer>", task.gold)));
    Some(replies)
}

impl DemonstrationSource for Decomposed {
    fn len(&self) -> Option<u64> {
        Some(self.tasks.len() as u64)
    }

    fn conversation(&self, index: u64) -> Conversation {
        let (task, replies) = &self.tasks[index as usize];
        whole(&self.agent, task, replies.clone())
    }
}

/// Either solved training tasks of a world, or the pretraining data of its base model: rollouts in
/// which each choice is correct some of the time (see [`leyden_mini::musique::Noise`]), with
/// paraphrased passages (see [`leyden_mini::musique::Paraphrase`]) for a model that cannot read
/// them yet.
struct WorldDemonstrations {
    world: Arc<MiniMusique>,
    agent: RagAgent,
    gold: bool,
    paraphrases: bool,
    retriever: Arc<dyn Retriever>,
    passages: usize,
    length: usize,
}

impl DemonstrationSource for WorldDemonstrations {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        if self.paraphrases && index % 2 == 1 {
            return self.retelling(index);
        }
        let task = self.world.train(task_index(self.gold, index));
        let seed = SeedTree::new(index).child("noise");
        let hops = task.label("hops").and_then(|n| n.parse().ok()).unwrap_or(2);
        let found = |query: &str| {
            let hits = self.retriever.retrieve(query, self.passages).unwrap_or_default();
            hits.into_iter().map(|hit| hit.number).collect()
        };
        let noise = if self.gold { Noise::none() } else { Noise::of(hops) };
        let turns = match noise.draw(&self.world, &task, seed, found) {
            Ok(turns) => turns,
            // The stream has only tasks of this world.
            Err(error) => unreachable!("{error}"),
        };
        let mut replies = Vec::new();
        for turn in turns {
            match turn {
                Turn::Call { read, query } => {
                    // With a leading space, a name has the same tokens as in passages.
                    let call = search(replies.len(), &format!(" {query}"));
                    replies.push(Message { content: verbalised(read), ..call });
                }
                Turn::Answer { read, name } => {
                    let parts = [verbalised(read), answer_form(&name)];
                    replies.push(Message::assistant(parts.join(" ").trim_start()));
                }
                Turn::Result { .. } => {}
            }
        }
        whole(&self.agent, &task, replies)
    }
}

impl WorldDemonstrations {
    /// Passages in the format of a search result, one of which is paraphrased.
    fn retelling(&self, index: u64) -> Conversation {
        let Paraphrase { original, number, paraphrase } = self.world.retelling(index);
        let shown = shown(original, self.length);
        let question = format!("{shown} tell [{number}] in other words.");
        let mut messages = self.agent.opening(&question);
        messages.push(Message::assistant(format!(" {paraphrase}")));
        Conversation { messages, tools: vec![spec()] }
    }
}

/// The statement of what was read; empty if nothing was.
fn verbalised(read: Option<Read>) -> String {
    read.map(|read| read.said()).unwrap_or_default()
}

/// Renders passages like the agent's search.
fn shown(passages: Vec<(String, String)>, length: usize) -> String {
    let hit = |(number, (title, text))| Hit {
        passage: Passage { id: String::new(), title, text },
        number,
        score: 0.0,
    };
    render(&passages.into_iter().enumerate().map(hit).collect::<Vec<Hit>>(), length)
}
