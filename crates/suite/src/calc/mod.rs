//! The calculator agent on Calc-X and mini-calc.

mod demonstrations;
mod describe;
mod fetch;
mod score;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use leyden_calc::{CalculatorAgent, Prompt};
use leyden_calcx::scorer::has_answer_form;
use leyden_calcx::{CalcxScorer, golden, loader};
use leyden_core::{Rollout, Task};
use leyden_mini::ledger::MOST_CALLS;
use leyden_mini::{MiniCalc, MiniLedger};
use leyden_train::config::{OwnKey, Preset};

use crate::benchmark::{
    Assembled, Benchmark, Dataset, Entries, Fetch, GeneratedWorld, Golden, LoadedTasks, Published,
    Train, World, read_rows,
};
use crate::describe::Description;
use crate::evaluation::Failure;
use crate::fetch::Written;
use crate::own_tasks::{self, Fields};
use crate::predictions::{Files, Scored};
use crate::registry::Registry;
use crate::reward::Reward;
use crate::settings::BenchmarkSettings;

/// The calculator agent.
pub struct Calc;

impl Benchmark for Calc {
    fn name(&self) -> &'static str {
        "calc"
    }

    fn what(&self) -> &'static str {
        "calculator"
    }

    fn strata(&self) -> &'static [&'static str] {
        &["source"]
    }

    fn keys(&self) -> Vec<OwnKey> {
        vec![OwnKey::new(
            SINGLE_OPERATION,
            Preset::Flag(false),
            "calc: whether the calculator takes one operation a call, so that k steps are k calls",
        )]
    }

    fn reward(&self) -> &'static str {
        "right answer"
    }

    fn files(&self) -> &'static str {
        "Calc-X (JSONL, Parquet)"
    }

    fn prepare(&self, settings: BenchmarkSettings, _: &Registry) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(Prepared::new(&settings)?))
    }

    fn worlds(&self) -> Vec<GeneratedWorld> {
        vec![
            GeneratedWorld::new(WORLD, |seed| Arc::new(MiniCalc::new(seed)))
                .pretrained("tiny", |settings| settings.agent.max_turns = 3),
            GeneratedWorld::new(LEDGER, |seed| Arc::new(MiniLedger::new(seed))).pretrained(
                "tiny-long",
                |settings| {
                    // The longest demonstration and its answer.
                    settings.agent.max_turns = MOST_CALLS + 1;
                    // The key is declared above.
                    let _ = settings.set(SINGLE_OPERATION, true);
                },
            ),
        ]
    }

    fn published(&self) -> Option<Published> {
        Some(Published { name: "calcx", repository: "MU-NLPC/Calc-X" })
    }

    fn fetch(&self, fetch: &Fetch<'_>) -> Result<Written> {
        fetch::fetch(fetch.hub, fetch.repository, fetch.out)
    }

    fn recognises(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has("result") && !has("paragraphs")
    }

    fn score(&self, files: &Files, registry: &Registry) -> Result<Scored> {
        score::score(files, registry)
    }

    fn failure(&self, rollout: &Rollout, _: f64) -> Failure {
        Failure::usual(rollout, rollout.answer.as_deref().is_some_and(has_answer_form))
    }

    fn golden(&self) -> Vec<Golden> {
        vec![
            Golden { name: "calcx", check: |file, _| Ok(golden::check_calcx(file)?) },
            Golden { name: "calculator", check: |file, _| Ok(golden::check_calculator(file)?) },
        ]
    }
}

const SINGLE_OPERATION: &str = "agent.single_operation";

/// The names of the generated worlds.
const WORLD: &str = "mini-calc";
const LEDGER: &str = "mini-ledger";

/// Calc-X with its files and its worlds.
struct Prepared {
    agent: CalculatorAgent,
    world: Arc<MiniCalc>,
    ledger: Arc<MiniLedger>,
    gold: bool,
    reward: Reward,
}

impl Prepared {
    fn new(settings: &BenchmarkSettings) -> Result<Self> {
        let reward = Reward::of(settings, &[])?;
        let prompt = if settings.compact()? { Prompt::Compact } else { Prompt::Full };
        let agent = CalculatorAgent::new(prompt, settings.agent.max_turns);
        Ok(Self {
            agent: agent.with_single_operation(settings.flag(SINGLE_OPERATION)?),
            world: Arc::new(MiniCalc::new(settings.data.seed)),
            ledger: Arc::new(MiniLedger::new(settings.data.seed)),
            gold: settings.gold(),
            reward,
        })
    }
}

impl World for MiniCalc {
    fn train(&self, index: u64) -> Task {
        MiniCalc::train(self, index)
    }

    fn test(&self, count: usize) -> Vec<Task> {
        MiniCalc::test(self, count)
    }

    fn write(&self, out: &Path, train: u64, test: usize) -> Result<Vec<Entries>> {
        self.write_jsonl(out, train, test)?;
        Ok(vec![("train.jsonl", train as usize, "task"), ("test.jsonl", test, "task")])
    }
}

impl World for MiniLedger {
    fn train(&self, index: u64) -> Task {
        MiniLedger::train(self, index)
    }

    fn test(&self, count: usize) -> Vec<Task> {
        MiniLedger::test(self, count)
    }

    fn write(&self, out: &Path, train: u64, test: usize) -> Result<Vec<Entries>> {
        self.write_jsonl(out, train, test)?;
        Ok(vec![("train.jsonl", train as usize, "task"), ("test.jsonl", test, "task")])
    }

    fn note(&self) -> Option<String> {
        Some("a problem of k steps takes k calls with agent.single_operation".to_owned())
    }
}

impl Dataset for Prepared {
    fn world(&self, name: &str) -> Option<Arc<dyn World>> {
        match name {
            WORLD => Some(Arc::clone(&self.world) as Arc<dyn World>),
            LEDGER => Some(Arc::clone(&self.ledger) as Arc<dyn World>),
            _ => None,
        }
    }

    fn read(&self, path: &Path) -> Result<LoadedTasks> {
        let fields = Fields::of(path)?;
        if !fields.has("result") && (fields.has("answer") || !self.reward.is_own()) {
            return own_tasks::read(path, |row, _| own_tasks::task(row, "answer"));
        }
        read_rows(path, |path| loader::from_file(path), loader::from_rows)
    }

    fn assemble(&self, train: Train<'_>, _: &[Task], demonstrated: bool) -> Result<Assembled> {
        let shown = || match train {
            Train::World(LEDGER) => demonstrations::of_ledger(&self.ledger, &self.agent, self.gold),
            Train::World(_) => Ok(demonstrations::of_world(&self.world, &self.agent, self.gold)),
            Train::Tasks(tasks) => demonstrations::of_tasks(tasks, &self.agent),
        };
        Ok(Assembled {
            demonstrations: demonstrated.then(shown).transpose()?,
            scorer: self.reward.scorer(|_| Arc::new(CalcxScorer))?,
            described: self.reward.provenance(),
            ..Assembled::of(self.agent.clone(), CalcxScorer)
        })
    }

    fn describe(&self, name: &str, tasks: &[Task]) -> Result<Description> {
        Ok(describe::describe(name, tasks))
    }
}
