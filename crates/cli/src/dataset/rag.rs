//! The retrieval agent on MuSiQue and mini-musique.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::{Message, Passage, SeedTree, Task, ToolCall};
use leyden_mini::MiniMusique;
use leyden_mini::musique::{Noise, Read, Retelling, Turn, answer_form};
use leyden_mini::names::NamesAgain;
use leyden_musique::{MusiqueScorer, Reward, corpus, loader};
use leyden_rag::{Options, Prompt, RagAgent, TOOL, render, spec};
use leyden_retrieval::{Hit, Retriever};
use leyden_suite::external::{Extras, Tool};
use leyden_train::config::RetrievalConfig;
use leyden_train::data::{Conversation, DemonstrationSource};
use serde_json::{Map, Value, json};

use super::script::play;
use super::{Cast, Dataset, Rows, Settings, Train, World, lesson, read_rows, retriever};

/// MuSiQue, its files and its world.
pub struct Rag {
    options: Options,
    reward: Reward,
    retrieval: RetrievalConfig,
    device: String,
    seed: u64,
    gold: bool,
    /// Made when it is first asked for: questions of files need none.
    world: OnceCell<Arc<MiniMusique>>,
}

impl Rag {
    pub fn new(settings: Settings) -> Result<Self> {
        let agent = &settings.agent;
        let mut options = Options {
            prompt: if settings.compact()? { Prompt::Compact } else { Prompt::Full },
            max_turns: agent.max_turns,
            max_searches: agent.searches,
            passages: agent.passages,
            ..Options::default()
        };
        if agent.result_characters > 0 {
            options.passage_length = agent.result_characters;
        }
        let reward = match settings.reward.name.as_str() {
            "default" => Reward::default(),
            name => name.parse().map_err(|e| anyhow::anyhow!("reward.name: {e}"))?,
        };
        Ok(Self {
            gold: settings.gold(),
            options,
            reward,
            retrieval: settings.retrieval,
            device: settings.device,
            seed: settings.data.seed,
            world: OnceCell::new(),
        })
    }

    fn mini(&self) -> &Arc<MiniMusique> {
        self.world.get_or_init(|| Arc::new(MiniMusique::new(self.seed)))
    }

    /// The passages that the tasks bring with them: the world's corpus, or their paragraphs.
    fn passages(&self, train: Train<'_>, test: &[Task]) -> Vec<Passage> {
        let of_world = |task: &Task| task.fields.get("source") == Some(&json!("mini-musique"));
        let own = match train {
            Train::World => &[][..],
            Train::Tasks(tasks) => tasks,
        };
        let mut passages = Vec::new();
        if matches!(train, Train::World) || test.iter().any(of_world) {
            passages.extend(world_passages(self.mini()));
        }
        let read: Vec<Task> = own.iter().chain(test).filter(|t| !of_world(t)).cloned().collect();
        passages.extend(corpus::passages(&read));
        passages
    }
}

impl World for MiniMusique {
    fn train(&self, index: u64) -> Task {
        MiniMusique::train(self, index)
    }

    fn test(&self, count: usize) -> Vec<Task> {
        MiniMusique::test(self, count)
    }
}

/// The corpus of the world, in its own order.
fn world_passages(world: &MiniMusique) -> impl Iterator<Item = Passage> {
    world.passages().iter().map(|passage| Passage {
        id: passage.id.clone(),
        title: passage.title.clone(),
        text: passage.text.clone(),
    })
}

impl Dataset for Rag {
    fn world_name(&self) -> &'static str {
        "mini-musique"
    }

    fn world(&self) -> Arc<dyn World> {
        Arc::clone(self.mini()) as Arc<dyn World>
    }

    fn read(&self, path: &Path) -> Result<Rows> {
        read_rows(path, |path| loader::from_file(path), loader::from_rows)
    }

    fn cast(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Cast> {
        let passages = || self.passages(train, test);
        let (retriever, described) =
            retriever::open(&self.retrieval, passages, &self.device).context("retrieval")?;
        let agent = RagAgent::new(Arc::clone(&retriever), self.options.clone());
        let searched = Arc::clone(&retriever);
        let demonstrations: Option<Box<dyn DemonstrationSource>> = match train {
            _ if !demonstrated => None,
            Train::World => {
                if !self.retrieval.corpus.is_empty() {
                    bail!("retrieval.corpus: demonstrations of mini-musique need its own corpus");
                }
                Some(Box::new(OfTheWorld {
                    world: Arc::clone(self.mini()),
                    agent: agent.clone(),
                    gold: self.gold,
                    retriever,
                    passages: self.options.passages,
                    length: self.options.passage_length,
                }))
            }
            Train::Tasks(tasks) => Some(Box::new(Decomposed::of(tasks, agent.clone())?)),
        };
        let scorer = Arc::new(MusiqueScorer { reward: self.reward });
        let extras = Arc::new(Searching(searched));
        let agent = Arc::new(agent);
        Ok(Cast { agent, scorer, demonstrations, described, folder: None, extras })
    }
}

/// The run's own retriever, for agents outside of this process: `POST {search}` with
/// `{"query": …, "k": …}` answers `{"passages": [{"id", "title", "text", "score"}, …]}`.
struct Searching(Arc<dyn Retriever>);

/// Most passages of one search over HTTP.
const MOST_PASSAGES: u64 = 100;

impl Extras for Searching {
    fn fields(&self, _: &Task, server: &str) -> Result<Map<String, Value>, String> {
        let mut fields = Map::new();
        fields.insert("search".to_owned(), format!("{server}/api/tools/search").into());
        Ok(fields)
    }

    fn tools(&self) -> Vec<(&'static str, Tool)> {
        let retriever = Arc::clone(&self.0);
        let search = move |body: Value| {
            let query = body.get("query").and_then(Value::as_str);
            let query = query.ok_or("`query` is missing or no text")?;
            let k = match body.get("k") {
                None => 4,
                Some(k) => {
                    k.as_u64().filter(|k| (1..=MOST_PASSAGES).contains(k)).ok_or_else(|| {
                        format!("`k` is {k}: it is a number from 1 to {MOST_PASSAGES}")
                    })?
                }
            };
            let hits = retriever.retrieve(query, k as usize).map_err(|e| e.to_string())?;
            let passage = |Hit { passage, score, .. }: Hit| {
                json!({
                    "id": passage.id, "title": passage.title, "text": passage.text, "score": score,
                })
            };
            Ok(json!({ "passages": hits.into_iter().map(passage).collect::<Vec<_>>() }))
        };
        vec![("search", Arc::new(search))]
    }
}

/// A search as the model asks for it.
fn search(number: usize, query: &str) -> Message {
    let mut message = Message::assistant("");
    message.tool_calls.push(ToolCall {
        id: format!("call_{number}"),
        name: TOOL.to_owned(),
        arguments: json!({ "query": query }),
    });
    message
}

/// The whole conversation of a rollout: the last one that was asked for.
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
                "demonstrations: {without} of {} tasks left out: no decomposition",
                tasks.len()
            );
        }
        if shown.is_empty() {
            bail!("data.train: no task has a decomposition that can be shown");
        }
        Ok(Self { agent, tasks: shown })
    }
}

/// One search for each single-hop question, in which `#1` stands for the first one's answer,
/// and the answer of the whole.
fn replies(task: &Task) -> Option<Vec<Message>> {
    let hops = task.fields.get("question_decomposition").and_then(Value::as_array)?;
    let mut answers: Vec<&str> = Vec::new();
    let mut replies = Vec::new();
    for hop in hops {
        let mut query = hop.get("question")?.as_str()?.replace(">>", "");
        // From the last on, lest `#1` be found in `#12`.
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

/// Either the training tasks of mini-musique, solved, or what its base model is raised on, in
/// turn: rollouts in which each choice is right some of the time (see
/// [`leyden_mini::musique::Noise`]), and passages told in other words (see
/// [`leyden_mini::musique::Retelling`]).
struct OfTheWorld {
    world: Arc<MiniMusique>,
    agent: RagAgent,
    gold: bool,
    retriever: Arc<dyn Retriever>,
    passages: usize,
    length: usize,
}

impl DemonstrationSource for OfTheWorld {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        if !self.gold && index % 2 == 1 {
            return self.retelling(index);
        }
        let task = self.world.train(lesson(self.gold, index));
        let seed = SeedTree::new(index).child("noise");
        let hops = task.label("hops").and_then(|n| n.parse().ok()).unwrap_or(2);
        let found = |query: &str| {
            let hits = self.retriever.retrieve(query, self.passages).unwrap_or_default();
            hits.into_iter().map(|hit| hit.number).collect()
        };
        let noise = if self.gold { Noise::none() } else { Noise::of(hops) };
        let turns = match noise.draw(&self.world, &task, seed, found) {
            Ok(turns) => turns,
            // The stream makes only tasks of this world.
            Err(error) => unreachable!("{error}"),
        };
        let mut replies = Vec::new();
        for turn in turns {
            match turn {
                Turn::Call { read, query } => {
                    // With the space before it a name has the form that it has in passages.
                    let call = search(replies.len(), &format!(" {query}"));
                    replies.push(Message { content: said(read), ..call });
                }
                Turn::Answer { read, name } => {
                    let parts = [said(read), answer_form(&name)];
                    replies.push(Message::assistant(parts.join(" ").trim_start()));
                }
                Turn::Result { .. } => {}
            }
        }
        whole(&self.agent, &task, replies)
    }
}

impl OfTheWorld {
    /// Passages as a search shows them, one of which is told again.
    fn retelling(&self, index: u64) -> Conversation {
        let Retelling { told, number, retold } = self.world.retelling(index);
        let shown = shown(told, self.length);
        let question = format!("{shown} tell [{number}] in other words.");
        let mut messages = self.agent.opening(&question);
        messages.push(Message::assistant(format!(" {retold}")));
        Conversation { messages, tools: vec![spec()] }
    }
}

/// What was read, in words; nothing where nothing was.
fn said(read: Option<Read>) -> String {
    read.map(|read| read.said()).unwrap_or_default()
}

/// Passages as the agent's search shows them.
fn shown(told: Vec<(String, String)>, length: usize) -> String {
    let hit = |(number, (title, text))| Hit {
        passage: Passage { id: String::new(), title, text },
        number,
        score: 0.0,
    };
    render(&told.into_iter().enumerate().map(hit).collect::<Vec<Hit>>(), length)
}

/// Exercises in copying: draws from a list of names. A model that begins with some thousands
/// of these has learned to copy a name by what it is before it meets anything else, and every
/// other lesson goes faster.
pub struct Copying(pub NamesAgain);

impl DemonstrationSource for Copying {
    fn len(&self) -> Option<u64> {
        None
    }

    fn conversation(&self, index: u64) -> Conversation {
        let (told, again) = self.0.exercise(index);
        let asked = Message::user(format!("draw from{told}."));
        Conversation { messages: vec![asked, Message::assistant(again)], tools: Vec::new() }
    }
}
