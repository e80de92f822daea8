//! Synthetic run folders: curves of the usual shape, every file, and text that tries to inject
//! markup into the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use leyden_core::SeedTree;
use leyden_core::record::{EvalRecord, RECORD_SCHEMA, Record, StepRecord, Timing};
use rusqlite::{Connection, params};

/// Text that would execute, close its element or the SVG, or reorder the line if not escaped.
pub const HOSTILE: &str =
    "</pre></svg><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u{202e}\u{0}\"'";

/// Parameters of a synthetic run.
#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    pub seed: u64,
    pub steps: u64,
    pub eval_every: u64,
    pub tasks: usize,
    pub start: f64,
    pub end: f64,
    pub learning_rate: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            name: "mini-calc",
            seed: 1,
            steps: 120,
            eval_every: 10,
            tasks: 256,
            start: 0.08,
            end: 0.86,
            learning_rate: 3e-4,
        }
    }
}

impl Plan {
    /// Mean reward after `step` updates.
    fn level(&self, step: u64) -> f64 {
        let progress = step as f64 / self.steps.max(1) as f64;
        let rise = 1.0 / (1.0 + (-12.0 * (progress - 0.33)).exp());
        self.start + (self.end - self.start) * (rise - 0.0187) / (0.9997 - 0.0187)
    }

    /// Writes the folder `dir/<name>-<learning rate>-<seed>` and returns it.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let folder = dir.join(format!("{}-{}-{}", self.name, self.learning_rate, self.seed));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.toml"), self.config()).unwrap();
        fs::write(folder.join("provenance.json"), provenance(self.seed)).unwrap();
        fs::write(folder.join("metrics.jsonl"), lines(&self.records())).unwrap();
        let timings: Vec<Timing> = (1..=self.steps).map(timing).collect();
        fs::write(folder.join("timings.jsonl"), lines(&timings)).unwrap();
        self.rollouts(&folder.join("rollouts.sqlite")).unwrap();
        folder
    }

    fn config(&self) -> String {
        format!(
            "# {HOSTILE_COMMENT}\nname = \"{}\"\nseed = {}\n\n[train]\nsteps = {}\nlearning_rate = {}\n\n\
             [report]\npaper_start = 0.0\npaper_end = 0.78\npaper_label = \"paper, 3B\"\n",
            self.name, self.seed, self.steps, self.learning_rate,
        )
    }

    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for step in 0..=self.steps {
            if step > 0 {
                records.push(Record::Step(Box::new(self.step(step))));
            }
            if step.is_multiple_of(self.eval_every) {
                for mode in ["greedy", "sampled"] {
                    records.push(Record::Eval(Box::new(self.eval(step, mode))));
                }
            }
        }
        records
    }

    fn tree(&self, name: &str, step: u64) -> SeedTree {
        SeedTree::new(self.seed).child(name).index(step)
    }

    fn noise(&self, name: &str, step: u64) -> f64 {
        let tree = self.tree(name, step);
        (0..12).map(|draw| tree.index(draw).uniform()).sum::<f64>() - 6.0
    }

    fn step(&self, step: u64) -> StepRecord {
        let level = self.level(step);
        let rollouts = 128;
        let right =
            (0..rollouts).filter(|i| self.tree("train", step).index(*i).uniform() < level).count();
        let mean = right as f64 / rollouts as f64;
        let decay = (-3.0 * step as f64 / self.steps as f64).exp();
        StepRecord {
            schema: RECORD_SCHEMA,
            step,
            tasks: 16,
            rollouts: rollouts as usize,
            rollouts_without_reward: usize::from(step.is_multiple_of(17)),
            reward_mean: mean,
            reward_std: (mean * (1.0 - mean)).sqrt(),
            reward_histogram: vec![(0.0, rollouts as usize - right), (1.0, right)],
            groups_without_variance: (16.0 * (level.powi(8) + (1.0 - level).powi(8))).round()
                as usize,
            groups_of_one: 0,
            calls: 250,
            calls_per_rollout: 2.0 - 0.1 * decay + 0.02 * self.noise("calls", step),
            response_length: 14.0 + 9.0 * decay + 0.5 * self.noise("length", step),
            truncated: (0.06 * decay + 0.004 * self.noise("cut", step)).max(0.0),
            row_tokens: 21_000,
            packed_tokens: 6_400,
            action_tokens: 3_500,
            loss: 0.02 * self.noise("loss", step),
            entropy: 0.15 + 0.9 * decay + 0.03 * self.noise("entropy", step),
            grad_norm: 0.4 + 0.5 * decay + 0.1 * self.noise("norm", step).abs(),
            learning_rate: self.learning_rate,
            clip_fraction: 0.01 + 0.003 * self.noise("clip", step).abs(),
            sampler_kl: 2e-9 * (1.0 + self.noise("kl", step).abs()),
            sampler_gap: 3e-5 * (1.0 + self.noise("gap", step).abs()),
            sampler_outside: 0.0,
            signals: BTreeMap::from([
                ("tool_error".to_owned(), (30.0 * decay) as usize),
                ("malformed_call".to_owned(), (50.0 * decay * decay) as usize),
                ("turn_limit".to_owned(), (8.0 * decay) as usize),
            ]),
            by_role: BTreeMap::new(),
            by_turn: BTreeMap::new(),
            level: None,
            extra: BTreeMap::new(),
        }
    }

    fn eval(&self, step: u64, mode: &str) -> EvalRecord {
        let bonus = if mode == "greedy" { 0.05 } else { 0.0 };
        let mut rewards = Vec::new();
        let mut by_label: BTreeMap<String, BTreeMap<String, (f64, usize)>> = BTreeMap::new();
        for task in 0..self.tasks as u64 {
            let operations = task % 3;
            let seen = task % 2 == 0;
            let ease = 0.08 - 0.08 * operations as f64 + if seen { 0.03 } else { -0.03 };
            let level = (self.level(step) + bonus + ease).clamp(0.0, 0.98);
            // A task keeps its difficulty; a small random part is drawn each time.
            let luck = 0.7 * SeedTree::new(5).index(task).uniform()
                + 0.3 * self.tree(mode, step).index(task).uniform();
            let reward = f64::from(u8::from(luck < level));
            rewards.push((format!("task-{task:03}"), Some(reward)));
            let labels = [
                ("operations", (operations + 1).to_string()),
                ("template", if seen { "seen" } else { "held_out" }.to_owned()),
            ];
            for (label, value) in labels {
                let sum = by_label.entry(label.to_owned()).or_default().entry(value).or_default();
                sum.0 += reward;
                sum.1 += 1;
            }
        }
        by_label.values_mut().flat_map(BTreeMap::values_mut).for_each(|sum| sum.0 /= sum.1 as f64);
        let total: f64 = rewards.iter().filter_map(|(_, reward)| *reward).sum();
        EvalRecord {
            schema: RECORD_SCHEMA,
            step,
            mode: mode.to_owned(),
            tasks: self.tasks,
            without_reward: 0,
            reward_mean: total / self.tasks as f64,
            rewards,
            by_label,
            response_length: 15.0,
            calls_per_rollout: 2.0,
            signals: BTreeMap::new(),
            depth: None,
        }
    }

    fn rollouts(&self, path: &Path) -> rusqlite::Result<()> {
        let _ = fs::remove_file(path);
        let database = Connection::open(path)?;
        // One transaction without syncing to disk, because there are many rows.
        database.execute_batch("PRAGMA synchronous = OFF; BEGIN")?;
        database.execute_batch(SCHEMA)?;
        for step in BTreeSet::from([0, self.steps]) {
            let eval = self.eval(step, "sampled");
            for (id, (task, reward)) in eval.rewards.iter().take(60).enumerate() {
                rollout(&database, step, "sampled", id, id, task, reward.unwrap(), None)?;
            }
        }
        for step in BTreeSet::from([self.steps.min(1), self.steps]) {
            for id in 0..8usize {
                let reward = if id % 4 < 2 { 0.0 } else { 1.0 };
                rollout(
                    &database,
                    step,
                    "train",
                    id,
                    id / 4,
                    "train-7",
                    reward,
                    Some(reward - 0.5),
                )?;
            }
        }
        database.execute_batch("COMMIT")
    }
}

const HOSTILE_COMMENT: &str = "</pre><script>alert('config')</script>";

fn provenance(seed: u64) -> String {
    serde_json::json!({
        "git": { "revision": "0123456789abcdef", "dirty": false },
        "seed": seed,
        "libtorch": "2.13.0",
        "threads": 2,
        "hostile": HOSTILE,
    })
    .to_string()
}

fn timing(step: u64) -> Timing {
    let seconds = [("generation", 0.9), ("update", 0.6), ("tools", 0.02)];
    let seconds = seconds.into_iter().map(|(part, s)| (part.to_owned(), s)).collect();
    Timing { step, phase: "step".to_owned(), seconds, ..Timing::default() }
}

pub fn lines<T: serde::Serialize>(values: &[T]) -> String {
    values.iter().map(|value| serde_json::to_string(value).unwrap() + "\n").collect()
}

const SCHEMA: &str = "
    CREATE TABLE rollouts(step INTEGER, phase TEXT, id INTEGER, task_id TEXT, grp INTEGER,
        question TEXT, gold TEXT, answer TEXT, reward REAL, missing TEXT,
        PRIMARY KEY(step, phase, id));
    CREATE TABLE calls(step INTEGER, phase TEXT, rollout INTEGER, idx INTEGER, role TEXT,
        prompt_ids BLOB, response_ids BLOB, logprobs BLOB, prompt_text TEXT, text TEXT,
        finish TEXT, policy_version INTEGER, credit REAL, advantage REAL,
        PRIMARY KEY(step, phase, rollout, idx));
    CREATE TABLE signals(step INTEGER, phase TEXT, rollout INTEGER, call INTEGER, kind TEXT,
        detail TEXT);";

#[expect(clippy::too_many_arguments)]
fn rollout(
    database: &Connection,
    step: u64,
    phase: &str,
    id: usize,
    group: usize,
    task: &str,
    reward: f64,
    advantage: Option<f64>,
) -> rusqlite::Result<()> {
    let right = reward > 0.5;
    let question = "A baker sells 2417 rolls a day for 38 days. How many rolls are that?";
    let answer = if right { "91_846" } else { HOSTILE };
    database.execute(
        "INSERT INTO rollouts VALUES (?1, ?2, ?3, ?4, ?5, ?6, '91846', ?7, ?8, NULL)",
        params![step as i64, phase, id as i64, task, group as i64, question, answer, reward],
    )?;
    let prompt = format!(
        "<|im_start|>system\nUse the calculator.<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    );
    let call = if right {
        "<tool_call>{\"name\": \"calculator\", \"arguments\": {\"expression\": \"2417 * 38\"}}</tool_call>"
    } else {
        "<tool_call>{\"name\": \"calculator\", \"arguments\": {\"expression\": \"2417 + 38 +\"}}</tool_call>"
    };
    let result = if right { "91_846" } else { "ERROR: an operand is missing after `+`" };
    let second = format!(
        "{prompt}{call}<|im_end|>\n<|im_start|>tool\n{result}<|im_end|>\n<|im_start|>assistant\n"
    );
    let last = format!("### ANSWER: {answer} ###");
    let kept = (phase != "train").then_some(());
    for (idx, (prompt, text)) in [(&prompt, call), (&second, last.as_str())].into_iter().enumerate()
    {
        database.execute(
            "INSERT INTO calls VALUES (?1, ?2, ?3, ?4, 'solver', ?5, ?6, ?7, ?8, ?9, 'stop', ?10, ?11, ?12)",
            params![
                step as i64,
                phase,
                id as i64,
                idx as i64,
                vec![0u8; 4 * 57],
                vec![0u8; 4 * 31],
                vec![0u8; 4 * 31],
                kept.map(|()| prompt.as_str()),
                text,
                step as i64,
                reward,
                advantage,
            ],
        )?;
    }
    if !right {
        database.execute(
            "INSERT INTO signals VALUES (?1, ?2, ?3, 0, 'tool_error', ?4)",
            params![step as i64, phase, id as i64, result],
        )?;
    }
    Ok(())
}
