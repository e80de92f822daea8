//! An experiment as it stands in a TOML file.
//!
//! Reading has two stages: the text with its overrides becomes an [`Experiment`] in which
//! every key has a value; whoever builds model, agent and data from it interprets the names.
//! Unknown keys are refused. [`REFERENCE`] describes every key once; `leyden run --help` and
//! the reference page are printed from it, and a test holds it against the structures.

use std::path::{Path, PathBuf};

use leyden_rl::config::AlgorithmConfig;
use serde::{Deserialize, Serialize};

/// What is wrong with an experiment file, as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("--set {text}: {what}")]
    Override { text: String, what: String },
    #[error("{}: {key}: {what}", path.display())]
    Value { path: PathBuf, key: String, what: String },
}

/// A whole experiment, every key resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub name: String,
    #[serde(default = "one")]
    pub seed: u64,
    pub model: ModelConfig,
    pub agent: AgentConfig,
    pub data: DataConfig,
    #[serde(default)]
    pub rollout: RolloutConfig,
    #[serde(default)]
    pub algorithm: AlgorithmConfig,
    pub train: TrainConfig,
    #[serde(default)]
    pub eval: EvalConfig,
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    #[serde(default)]
    pub report: ReportConfig,
}

fn one() -> u64 {
    1
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub source: String,
    #[serde(default = "cpu")]
    pub device: String,
    #[serde(default = "f32_name")]
    pub dtype: String,
    #[serde(default = "f32_name")]
    pub master_dtype: String,
    #[serde(default = "two")]
    pub threads: usize,
    /// 0: what the model was made for.
    #[serde(default)]
    pub context: usize,
    #[serde(default)]
    pub lora: Option<LoraConfig>,
}

fn cpu() -> String {
    "cpu".to_owned()
}

fn f32_name() -> String {
    "f32".to_owned()
}

fn two() -> usize {
    2
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f64,
    pub targets: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    pub name: String,
    #[serde(default = "full")]
    pub prompt: String,
    #[serde(default = "four")]
    pub max_turns: usize,
}

fn full() -> String {
    "full".to_owned()
}

fn four() -> usize {
    4
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Sources of training tasks, mixed by their size.
    pub train: Vec<String>,
    /// Sources of held-out tasks.
    pub test: Vec<String>,
    /// Most training tasks taken from each source; 0 is all.
    #[serde(default)]
    pub train_limit: usize,
    /// Longest demonstration, in tokens; longer ones are left out (supervised only).
    #[serde(default = "default_demonstration_tokens")]
    pub demonstration_tokens: usize,
    /// Seed of generated worlds and of splits; not the run's, so that seeds share a test set.
    #[serde(default)]
    pub seed: u64,
}

fn default_demonstration_tokens() -> usize {
    1024
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    pub tasks: usize,
    pub samples: usize,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: usize,
    pub max_tokens: usize,
    /// Most tokens that the KV cache of one round may hold.
    pub cache_tokens: usize,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            tasks: 32,
            samples: 4,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            max_tokens: 2048,
            cache_tokens: 262_144,
        }
    }
}

/// What the gradient comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Rewards of the agent's own rollouts.
    Reinforcement,
    /// Demonstrations.
    Supervised,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    Adamw,
    Muon,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    pub objective: Objective,
    pub steps: u64,
    pub optimizer: OptimizerName,
    pub learning_rate: f64,
    /// Muon's rate for the layers' matrices.
    pub matrix_learning_rate: f64,
    pub schedule: String,
    pub warmup: u64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub grad_clip: f64,
    pub epochs: usize,
    pub mini_batches: usize,
    /// Tokens of one forward and backward pass, after merging prefixes.
    pub micro_batch_tokens: usize,
    pub activation_checkpointing: bool,
    /// Roles that are trained; empty is all.
    pub roles: Vec<String>,
    /// Rows with a longer prompt are left out of training.
    pub max_prompt_tokens: usize,
    /// Steps in a row without any variance of reward after which the run stops.
    pub patience_without_variance: u64,
    /// Demonstrations of one step (supervised only).
    pub batch: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            objective: Objective::Reinforcement,
            steps: 100,
            optimizer: OptimizerName::Adamw,
            learning_rate: 1e-6,
            matrix_learning_rate: 0.02,
            schedule: "constant".to_owned(),
            warmup: 0,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            grad_clip: 1.0,
            epochs: 1,
            mini_batches: 1,
            micro_batch_tokens: 8192,
            activation_checkpointing: false,
            roles: Vec::new(),
            max_prompt_tokens: 4096,
            patience_without_variance: 20,
            batch: 32,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    pub every: u64,
    pub tasks: usize,
    pub modes: Vec<String>,
    pub temperature: f64,
    pub max_tokens: usize,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every: 32,
            tasks: 256,
            modes: vec!["sampled".to_owned(), "greedy".to_owned()],
            temperature: 1.0,
            max_tokens: 2048,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    pub every: u64,
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 10, keep: 2 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportConfig {
    pub paper_start: Option<f64>,
    pub paper_end: Option<f64>,
    pub paper_label: Option<String>,
}

/// One key of an experiment: where it stands and what it says.
pub struct Key {
    pub path: &'static str,
    pub what: &'static str,
}

const fn key(path: &'static str, what: &'static str) -> Key {
    Key { path, what }
}

/// Every key of an experiment file.
pub const REFERENCE: &[Key] = &[
    key("name", "name of the run and of its folder"),
    key("seed", "root of the seed tree: sampling, task order, initial adapters"),
    key("model.source", "`tiny` (embedded), a Hugging Face folder, a .gguf file, or a hub id"),
    key("model.device", "cpu, cuda or cuda:N"),
    key("model.dtype", "type of the forward pass and of generation: f32, bf16 or f16"),
    key("model.master_dtype", "type in which parameters are kept and updated"),
    key("model.threads", "threads of libtorch and of the tools"),
    key("model.context", "context length in tokens; 0 is what the model was made for"),
    key(
        "model.lora.rank",
        "rank of the low-rank adapters; without [model.lora] all parameters train",
    ),
    key("model.lora.alpha", "scale of the adapters is alpha / rank"),
    key(
        "model.lora.targets",
        "projections with adapters: q, k, v, o, gate, up, down (or their _proj names)",
    ),
    key("agent.name", "the agent: calc"),
    key("agent.prompt", "full: instructions for a strange model; compact: one line"),
    key("agent.max_turns", "most model calls of one rollout"),
    key("data.train", "training tasks: mini-calc, or Calc-X files (JSONL, Parquet)"),
    key("data.test", "held-out tasks, likewise; file:10..20 takes those rows"),
    key("data.train_limit", "most training tasks of each source; 0 is all"),
    key("data.demonstration_tokens", "longer demonstrations are left out (supervised only)"),
    key("data.seed", "seed of generated worlds and splits; shared by all seeds of an experiment"),
    key("rollout.tasks", "tasks of one step"),
    key("rollout.samples", "rollouts of each task: the group size n"),
    key("rollout.temperature", "sampling temperature; the trainer divides its logits by it too"),
    key("rollout.top_p", "nucleus; train with 1, anything else biases the ratios"),
    key("rollout.top_k", "only the k likeliest tokens; 0 is off"),
    key("rollout.max_tokens", "most tokens of one response"),
    key("rollout.cache_tokens", "most tokens in the KV cache; more rollouts run in waves"),
    key(
        "algorithm.aggregation",
        "token-mean, seq-mean-token-sum, seq-mean-token-mean, seq-mean-token-sum-norm",
    ),
    key(
        "algorithm.aggregation_constant",
        "divisor of seq-mean-token-sum-norm; the longest row if absent",
    ),
    key("algorithm.entropy_coefficient", "factor of the entropy bonus; 0 is off"),
    key("algorithm.credit", "name = identical: every call earns the final reward"),
    key(
        "algorithm.advantage",
        "name = grpo with group_over = rows or rollouts, compat = none or verl, …",
    ),
    key("algorithm.loss", "name = ppo with clip_low, clip_high, dual_clip, …"),
    key("algorithm.kl", "estimator and coefficient of the KL term; 0 is off"),
    key("train.objective", "reinforcement or supervised"),
    key("train.steps", "number of steps"),
    key("train.optimizer", "adamw or muon"),
    key("train.learning_rate", "learning rate of AdamW (with muon: of embeddings and norms)"),
    key("train.matrix_learning_rate", "learning rate of Muon for the layers' matrices"),
    key("train.schedule", "constant, linear or cosine (to 0 at the last step)"),
    key("train.warmup", "steps of linear warm-up"),
    key("train.weight_decay", "decoupled weight decay"),
    key("train.beta1", "AdamW's first moment"),
    key("train.beta2", "AdamW's second moment"),
    key("train.grad_clip", "largest norm of the gradient; 0 is off"),
    key("train.epochs", "passes over the rollouts of a step"),
    key("train.mini_batches", "updates of one pass"),
    key(
        "train.micro_batch_tokens",
        "tokens of one forward and backward pass; changes memory, not the gradient",
    ),
    key("train.activation_checkpointing", "recompute activations in the backward pass"),
    key("train.roles", "agent roles that are trained; empty is all"),
    key("train.max_prompt_tokens", "calls with a longer prompt are left out of training"),
    key(
        "train.patience_without_variance",
        "stop after this many steps in a row without any variance of reward",
    ),
    key("train.batch", "demonstrations of one step (supervised only)"),
    key("eval.every", "steps between evaluations; 0 evaluates at start and end only"),
    key("eval.tasks", "held-out tasks of one evaluation; 0 is all"),
    key("eval.modes", "sampled, greedy"),
    key("eval.temperature", "temperature of the sampled evaluation"),
    key("eval.max_tokens", "most tokens of one response"),
    key("checkpoint.every", "steps between checkpoints"),
    key("checkpoint.keep", "checkpoints kept"),
    key("report.paper_start", "level drawn into the curve: the paper's first evaluation"),
    key("report.paper_end", "the paper's last evaluation"),
    key("report.paper_label", "what these levels are called"),
];

impl Experiment {
    /// Reads an experiment file and applies `overrides` (`train.steps=40`) on top.
    ///
    /// # Errors
    /// A missing file, TOML that does not parse (with line), an unknown key, an override
    /// without `=`, or a value that is not possible.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let file = |what: String| ConfigError::File { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|e| file(e.to_string()))?;
        Self::parse(&text, path, overrides)
    }

    /// As [`Experiment::read`], from a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Experiment::read`].
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let file = |e: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            what: e.to_string().trim_end().to_owned(),
        };
        // Parsed as it stands first: only then do messages carry the line.
        let plain: Result<Self, _> = toml::from_str(text);
        let experiment = if overrides.is_empty() {
            plain.map_err(file)?
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(file)?;
            for text in overrides {
                apply(&mut table, text)?;
            }
            let changed: Result<Self, _> = table.try_into();
            match changed {
                Ok(experiment) => experiment,
                Err(with_overrides) => match plain {
                    Err(without) => return Err(file(without)),
                    Ok(_) => {
                        return Err(ConfigError::Override {
                            text: overrides.join(" --set "),
                            what: with_overrides.to_string().trim_end().to_owned(),
                        });
                    }
                },
            }
        };
        experiment.check(path)?;
        Ok(experiment)
    }

    /// The resolved experiment as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("an experiment is plain data")
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key: &str, what: String| {
            Err(ConfigError::Value { path: path.to_owned(), key: key.to_owned(), what })
        };
        let folder_name = !self.name.is_empty()
            && !self.name.starts_with('.')
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !folder_name {
            return refuse("name", format!("`{}` is no folder name", self.name));
        }
        for (key, value) in [
            ("rollout.tasks", self.rollout.tasks),
            ("rollout.samples", self.rollout.samples),
            ("rollout.max_tokens", self.rollout.max_tokens),
            ("rollout.cache_tokens", self.rollout.cache_tokens),
            ("train.epochs", self.train.epochs),
            ("train.mini_batches", self.train.mini_batches),
            ("train.micro_batch_tokens", self.train.micro_batch_tokens),
            ("train.batch", self.train.batch),
            ("agent.max_turns", self.agent.max_turns),
            ("checkpoint.keep", self.checkpoint.keep),
            ("model.threads", self.model.threads),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1".to_owned());
            }
        }
        let rates = [
            ("train.learning_rate", self.train.learning_rate),
            ("train.matrix_learning_rate", self.train.matrix_learning_rate),
            ("train.weight_decay", self.train.weight_decay),
            ("train.grad_clip", self.train.grad_clip),
            ("eval.temperature", self.eval.temperature),
        ];
        for (key, value) in rates {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, format!("{value} must be a number that is not negative"));
            }
        }
        if !(self.rollout.temperature.is_finite() && self.rollout.temperature > 0.0) {
            return refuse(
                "rollout.temperature",
                "must be positive: training needs samples".to_owned(),
            );
        }
        if !(self.rollout.top_p > 0.0 && self.rollout.top_p <= 1.0) {
            return refuse("rollout.top_p", "must be above 0 and at most 1".to_owned());
        }
        for mode in &self.eval.modes {
            if mode != "greedy" && mode != "sampled" {
                return refuse("eval.modes", format!("`{mode}`: use greedy and sampled"));
            }
        }
        if !["constant", "linear", "cosine"].contains(&self.train.schedule.as_str()) {
            return refuse(
                "train.schedule",
                format!("`{}`: use constant, linear or cosine", self.train.schedule),
            );
        }
        if let Err(e) = self.algorithm.validate() {
            return refuse("algorithm", e.to_string());
        }
        Ok(())
    }
}

/// Sets `a.b.c=value` in `table`; the value is TOML, or else a plain string.
fn apply(table: &mut toml::Table, text: &str) -> Result<(), ConfigError> {
    let refuse =
        |what: &str| ConfigError::Override { text: text.to_owned(), what: what.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(|| refuse("write key=value"))?;
    let value = value.trim();
    let parsed: Result<toml::Table, _> = toml::from_str(&format!("value = {value}"));
    let value = match parsed {
        Ok(mut one) => one.remove("value").unwrap_or_else(|| toml::Value::String(value.to_owned())),
        Err(_) => toml::Value::String(value.to_owned()),
    };
    let keys: Vec<&str> = path.trim().split('.').collect();
    let (last, parents) = keys.split_last().ok_or_else(|| refuse("write key=value"))?;
    let mut table = table;
    for parent in parents {
        table = table
            .entry((*parent).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| refuse(&format!("`{parent}` is a value, not a table")))?;
    }
    table.insert((*last).to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'calc'\n\
        [data]\ntrain = ['mini-calc']\ntest = ['mini-calc']\n[train]\nsteps = 3\n";

    fn parse(text: &str, overrides: &[&str]) -> Result<Experiment, ConfigError> {
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        Experiment::parse(text, Path::new("x.toml"), &overrides)
    }

    #[test]
    fn defaults_are_resolved_and_written_back() {
        let experiment = parse(SMALLEST, &[]).unwrap();
        assert_eq!(experiment.rollout.samples, 4);
        assert_eq!(parse(&experiment.to_toml(), &[]).unwrap(), experiment);
    }

    #[test]
    fn overrides_reach_nested_keys_and_keep_their_type() {
        let e = parse(
            SMALLEST,
            &["train.steps=7", "model.source=some/folder", "algorithm.loss.name=ppo"],
        )
        .unwrap();
        assert_eq!((e.train.steps, e.model.source.as_str()), (7, "some/folder"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, overrides, named) in [
            (&SMALLEST.replace("steps", "stepz")[..], &[][..], "stepz"),
            (SMALLEST, &["train.stepz=1"], "stepz"),
            (SMALLEST, &["train.steps"], "key=value"),
            (SMALLEST, &["rollout.samples=0"], "rollout.samples"),
            (SMALLEST, &["eval.modes=['beam']"], "beam"),
            (SMALLEST, &["train.learning_rate=nan"], "train.learning_rate"),
            (SMALLEST, &["algorithm.loss.clip_low=7"], "clip_low"),
            (SMALLEST, &["name=../x"], "folder"),
            (SMALLEST, &["model.source.x=1"], "not a table"),
        ] {
            let error = parse(text, overrides).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = parse(&SMALLEST.replace("steps", "stepz"), &[]).unwrap_err().to_string();
        assert!(error.contains("line 9"), "{error}");
    }

    #[test]
    fn the_reference_names_every_key() {
        let mut experiment = parse(SMALLEST, &[]).unwrap();
        experiment.model.lora = Some(LoraConfig { rank: 1, alpha: 1.0, targets: vec![] });
        experiment.algorithm.aggregation_constant = Some(1.0);
        experiment.report = ReportConfig {
            paper_start: Some(0.0),
            paper_end: Some(1.0),
            paper_label: Some("paper".to_owned()),
        };
        let table: toml::Table = toml::from_str(&experiment.to_toml()).unwrap();
        let mut found = Vec::new();
        collect(&table, "", &mut found);
        let known: Vec<&str> = REFERENCE.iter().map(|k| k.path).collect();
        for key in &found {
            assert!(known.contains(&key.as_str()), "{key} is not described");
        }
        for key in known {
            assert!(found.iter().any(|f| f == key), "{key} is described and does not exist");
        }
    }

    fn collect(table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            // The tables of the algorithms describe themselves.
            let own = ["algorithm.credit", "algorithm.advantage", "algorithm.loss", "algorithm.kl"];
            match value {
                toml::Value::Table(inner) if !own.contains(&path.as_str()) => {
                    collect(inner, &path, found);
                }
                _ => found.push(path),
            }
        }
    }
}
