//! The retrieval agent on MuSiQue and mini-musique.

mod demonstrations;
mod describe;
mod encoder;
mod fetch;
pub mod recall;
mod retriever;
mod score;

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::{Passage, Rollout, Task};
use leyden_mini::MiniMusique;
use leyden_mini::musique::LONG_HOPS;
use leyden_musique::scorer::answer_span;
use leyden_musique::{MusiqueScorer, corpus, golden, loader};
use leyden_rag::{Options, Prompt, RagAgent};
use leyden_retrieval::{Hit, Retriever};
use leyden_train::config::{OwnKey, Preset};
use serde_json::{Map, Value, json};

use crate::benchmark::{
    Assembled, Benchmark, Dataset, Entries, Fetch, GeneratedWorld, Golden, LoadedTasks, Published,
    Train, World, read_rows,
};
use crate::describe::Description;
use crate::evaluation::Failure;
use crate::external::{Extras, Tool};
use crate::fetch::Written;
use crate::own_tasks::{self, Fields};
use crate::predictions::{Files, Scored};
use crate::registry::Registry;
use crate::reward::Reward;
use crate::settings::{BenchmarkSettings, PROCESS_REWARD, process_reward_key};
use crate::table::counted;
use demonstrations::Shown;
use retriever::Retrieval;

/// The retrieval agent.
pub struct Rag;

const SEARCHES: &str = "agent.searches";
const PASSAGES: &str = "agent.passages";

impl Benchmark for Rag {
    fn name(&self) -> &'static str {
        "rag"
    }

    fn what(&self) -> &'static str {
        "retrieval"
    }

    fn strata(&self) -> &'static [&'static str] {
        &["hops"]
    }

    fn keys(&self) -> Vec<OwnKey> {
        let text = |path, default, what| OwnKey::new(path, Preset::Text(default), what);
        vec![
            process_reward_key(),
            OwnKey::new(SEARCHES, Preset::Whole(5), "rag: maximum number of searches per rollout"),
            OwnKey::new(PASSAGES, Preset::Count(4), "rag: passages per search result"),
            text(
                retriever::METHOD,
                "bm25",
                "rag: bm25, dense or hybrid (both, fused by reciprocal rank)",
            )
            .flag("retrieval", "METHOD"),
            text(
                retriever::CORPUS,
                "",
                "rag: JSONL file of passages; the paragraphs of the tasks if empty",
            )
            .flag("corpus", "FILE"),
            text(retriever::INDEX, "", "rag: folder of the index; in memory if empty")
                .flag("index", "FOLDER"),
            text(retriever::ENCODER, "", "rag: folder of a sentence encoder, for dense and hybrid")
                .flag("encoder", "FOLDER"),
        ]
    }

    fn reward(&self) -> &'static str {
        "F1"
    }

    fn rewards(&self) -> &'static [&'static str] {
        &["f1", "f1_format"]
    }

    fn files(&self) -> &'static str {
        "MuSiQue (JSONL, Parquet)"
    }

    fn max_turns(&self) -> usize {
        6
    }

    fn prepare(&self, settings: BenchmarkSettings, _: &Registry) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(Prepared::new(&settings)?))
    }

    fn worlds(&self) -> Vec<GeneratedWorld> {
        vec![
            GeneratedWorld::new(WORLD, |seed| Arc::new(MiniMusique::new(seed)))
                .pretrained("tiny", |settings| configure(settings, 3)),
            GeneratedWorld::new(LONG, |seed| Arc::new(MiniMusique::long(seed)))
                .pretrained("tiny-long", |settings| configure(settings, *LONG_HOPS.end() as i64)),
        ]
    }

    fn published(&self) -> Option<Published> {
        Some(Published { name: "musique", repository: "bdsaglam/musique" })
    }

    fn fetch(&self, fetch: &Fetch<'_>) -> Result<Written> {
        fetch::fetch(fetch.hub, fetch.repository, fetch.out, fetch.all)
    }

    fn recognises(&self, has: &dyn Fn(&str) -> bool) -> bool {
        let bare = has("answer") && !has("result");
        !has("db_id") && (has("paragraphs") || has("question_decomposition") || bare)
    }

    fn score(&self, files: &Files, registry: &Registry) -> Result<Scored> {
        score::score(files, registry)
    }

    fn failure(&self, rollout: &Rollout, reward: f64) -> Failure {
        let span = rollout.answer.as_deref().and_then(answer_span);
        let answered = span.is_some_and(|span| !span.is_empty());
        if reward > 0.0 && answered {
            return Failure::PartlyRight;
        }
        Failure::usual(rollout, answered)
    }

    fn golden(&self) -> Vec<Golden> {
        vec![Golden { name: "musique", check: |file, _| Ok(golden::check(file)?) }]
    }
}

/// The names of the generated worlds, which share their corpus.
const WORLD: &str = "mini-musique";
const LONG: &str = "mini-musique-long";

/// The settings of a world's pretraining: so many searches of one passage each, and an answer.
fn configure(settings: &mut BenchmarkSettings, searches: i64) {
    settings.agent.max_turns = searches as usize + 1;
    // Both keys are declared above.
    let _ = settings.set(SEARCHES, searches);
    let _ = settings.set(PASSAGES, 1);
}

/// MuSiQue with its files and its worlds.
struct Prepared {
    options: Options,
    reward: Reward,
    retrieval: Retrieval,
    device: String,
    seed: u64,
    gold: bool,
    /// Created on first use: questions from files need none.
    world: OnceCell<Arc<MiniMusique>>,
    long: OnceCell<Arc<MiniMusique>>,
}

impl Prepared {
    fn new(settings: &BenchmarkSettings) -> Result<Self> {
        let agent = &settings.agent;
        let mut options = Options {
            prompt: if settings.compact()? { Prompt::Compact } else { Prompt::Full },
            max_turns: agent.max_turns,
            max_searches: settings.count(SEARCHES)?,
            passages: settings.count(PASSAGES)?,
            process_reward: settings.real(PROCESS_REWARD)?,
            ..Options::default()
        };
        if agent.result_characters > 0 {
            options.passage_length = agent.result_characters;
        }
        Ok(Self {
            gold: settings.gold(),
            options,
            reward: Reward::of(settings, Rag.rewards())?,
            retrieval: Retrieval::of(settings)?,
            device: settings.device.clone(),
            seed: settings.data.seed,
            world: OnceCell::new(),
            long: OnceCell::new(),
        })
    }

    fn mini(&self) -> &Arc<MiniMusique> {
        self.world.get_or_init(|| Arc::new(MiniMusique::new(self.seed)))
    }

    fn long(&self) -> &Arc<MiniMusique> {
        self.long.get_or_init(|| Arc::new(MiniMusique::long(self.seed)))
    }

    /// The world that demonstrations are drawn from, and what they are. The long world's base model
    /// has learned to read passages already; it sees all lengths, so that it knows their positions.
    fn demonstrated(&self, world: &str) -> Result<(Arc<MiniMusique>, Shown)> {
        Ok(match (world == LONG, self.gold) {
            (true, true) => (Arc::clone(self.long()), Shown::Solutions),
            (true, false) => {
                (Arc::new(MiniMusique::long(self.seed).with_hops(LONG_HOPS)?), Shown::Attempts)
            }
            (false, true) => (Arc::clone(self.mini()), Shown::Solutions),
            (false, false) => (Arc::clone(self.mini()), Shown::AttemptsAndParaphrases),
        })
    }

    /// The passages of the tasks: the world's corpus, or the tasks' paragraphs.
    fn passages(&self, train: Train<'_>, test: &[Task]) -> Vec<Passage> {
        let of_world = |task: &Task| {
            let source = task.fields.get("source").and_then(Value::as_str);
            source.is_some_and(|source| source == WORLD || source == LONG)
        };
        let own = match train {
            Train::World(_) => &[][..],
            Train::Tasks(tasks) => tasks,
        };
        let mut passages = Vec::new();
        if matches!(train, Train::World(_)) || test.iter().any(of_world) {
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

    fn write(&self, out: &Path, train: u64, test: usize) -> Result<Vec<Entries>> {
        self.write_jsonl(out, train, test)?;
        Ok(vec![
            ("train.jsonl", train as usize, "task"),
            ("test.jsonl", test, "task"),
            ("corpus.jsonl", self.passages().len(), "passage"),
        ])
    }

    fn note(&self) -> Option<String> {
        let passages = counted(self.passages().len(), "passage");
        Some(format!("the agent searches the world's own corpus: {passages}"))
    }
}

/// The corpus of the world, in its original order.
fn world_passages(world: &MiniMusique) -> impl Iterator<Item = Passage> {
    world.passages().iter().map(|passage| Passage {
        id: passage.id.clone(),
        title: passage.title.clone(),
        text: passage.text.clone(),
    })
}

impl Dataset for Prepared {
    fn world(&self, name: &str) -> Option<Arc<dyn World>> {
        match name {
            WORLD => Some(Arc::clone(self.mini()) as Arc<dyn World>),
            LONG => Some(Arc::clone(self.long()) as Arc<dyn World>),
            _ => None,
        }
    }

    fn read(&self, path: &Path) -> Result<LoadedTasks> {
        let fields = Fields::of(path)?;
        let own = ["paragraphs", "question_decomposition", "answer_aliases", "answerable"];
        if !self.reward.is_own() && !own.iter().any(|field| fields.has(field)) {
            return own_tasks::read(path, |row, _| own_tasks::task(row, "answer"));
        }
        read_rows(path, |path| loader::from_file(path), loader::from_rows)
    }

    fn assemble(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Assembled> {
        let passages = || self.passages(train, test);
        let (retriever, mut described) =
            retriever::open(&self.retrieval, passages, &self.device).context("retrieval")?;
        if !self.reward.is_own() {
            described["reward"] = self.reward.described();
        }
        let agent = RagAgent::new(Arc::clone(&retriever), self.options.clone());
        if let Train::World(world) = train
            && demonstrated
            && !self.retrieval.corpus.is_empty()
        {
            bail!("{}: demonstrations of {world} need its own corpus", retriever::CORPUS);
        }
        let shown = || match train {
            Train::World(world) => {
                let (world, shown) = self.demonstrated(world)?;
                let retriever = Arc::clone(&retriever);
                Ok(demonstrations::of_world(world, agent.clone(), shown, retriever, &self.options))
            }
            Train::Tasks(tasks) => demonstrations::of_tasks(tasks, agent.clone()),
        };
        Ok(Assembled {
            demonstrations: demonstrated.then(shown).transpose()?,
            scorer: self.reward.scorer(|name| Arc::new(own_scorer(name)))?,
            described,
            extras: Arc::new(Searching(Arc::clone(&retriever))),
            ..Assembled::of(agent.clone(), MusiqueScorer::default())
        })
    }

    fn describe(&self, name: &str, tasks: &[Task]) -> Result<Description> {
        Ok(describe::describe(name, tasks, &corpus::passages(tasks)))
    }
}

/// The scorer of MuSiQue's reward with this name, or of the default reward.
fn own_scorer(name: &str) -> MusiqueScorer {
    MusiqueScorer { reward: name.parse().unwrap_or_default() }
}

/// The run's retriever as an HTTP tool for external agents: `POST {search}` with
/// `{"query": …, "k": …}` returns `{"passages": [{"id", "title", "text", "score"}, …]}`.
struct Searching(Arc<dyn Retriever>);

/// Maximum number of passages per search over HTTP.
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
            let query = query.ok_or("`query` is missing or not a text")?;
            let k = match body.get("k") {
                None => 4,
                Some(k) => {
                    k.as_u64().filter(|k| (1..=MOST_PASSAGES).contains(k)).ok_or_else(|| {
                        format!("`k` is {k}: it must be a number from 1 to {MOST_PASSAGES}")
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
