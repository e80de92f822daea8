//! The configuration of an experiment, read from a TOML file.
//!
//! The text with its overrides is resolved to an [`Experiment`] in which every key has a value;
//! callers that build model, agent and data from it interpret the names. Unknown keys are rejected.
//! [`reference::reference`] describes every key once, including those that benchmarks add with a
//! [`Schema`](schema::Schema); `leyden run --help` is printed from it, and a test checks it against
//! the structs.

use leyden_lm::model::LoraConfig;
use leyden_rl::config::AlgorithmConfig;
use leyden_text::ControlTokens;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rounds::options::{Deadlines, OnFailure, Schedule};

mod critic;
mod critic_checks;
mod curriculum;
mod error;
mod off_policy;
mod own;
mod read;
pub mod reference;
mod replay;
pub mod schema;

pub use critic::{CriticConfig, CriticTrunk};
pub use curriculum::{CurriculumConfig, OpenBy};
pub use error::ConfigError;
use own::Rest;
pub use own::{Flag, KeyError, OwnKey, Preset, Values};
pub use replay::ReplayConfig;

/// Implements serde's traits for a struct with the field `own`, which has the keys declared by
/// benchmarks.
macro_rules! with_own_keys {
    ($config:ident) => {
        impl Serialize for $config {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $config {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut own = Values::default();
                let config = Self::deserialize(Rest { inner: deserializer, rest: &mut own })?;
                Ok(Self { own, ..config })
            }
        }
    };
}

with_own_keys!(Experiment);
with_own_keys!(AgentConfig);
with_own_keys!(DataConfig);

/// An experiment with every key resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Experiment {
    pub name: String,
    #[serde(default = "one")]
    pub seed: u64,
    pub model: ModelConfig,
    pub agent: AgentConfig,
    pub data: DataConfig,
    /// Tables of the benchmarks.
    #[serde(flatten, skip_deserializing)]
    pub own: Values,
    #[serde(default)]
    pub reward: RewardConfig,
    #[serde(default)]
    pub rollout: RolloutConfig,
    #[serde(default)]
    pub algorithm: AlgorithmConfig,
    pub train: TrainConfig,
    #[serde(default)]
    pub critic: CriticConfig,
    #[serde(default)]
    pub eval: EvalConfig,
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    #[serde(default)]
    pub report: ReportConfig,
    /// The key declarations that it was resolved against.
    #[serde(skip)]
    keys: Vec<OwnKey>,
}

impl Experiment {
    /// Number of engines that share the rollouts: at most one per thread on a CPU, one on other
    /// devices.
    pub fn engines(&self) -> usize {
        self.workers(self.rollout.engines)
    }

    /// Number of replicas that share an update, with the same limits; 1 for a policy with adapters.
    pub fn replicas(&self) -> usize {
        match self.model.lora {
            Some(_) => 1,
            None => self.workers(self.train.replicas),
        }
    }

    fn workers(&self, requested: usize) -> usize {
        match self.model.device.as_str() {
            "cpu" => requested.min(self.model.threads),
            _ => 1,
        }
    }
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
    /// 0: the model's own context length.
    #[serde(default)]
    pub context: usize,
    #[serde(default)]
    pub control_tokens: ControlTokens,
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

/// The agent, with the keys declared by benchmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentConfig {
    pub name: String,
    /// The level of detail of its prompts.
    #[serde(default = "full")]
    pub prompt: String,
    #[serde(default = "four")]
    pub max_turns: usize,
    #[serde(flatten, skip_deserializing)]
    pub own: Values,
    /// Maximum length of a tool result shown to the model, in characters; 0 is the agent's default.
    #[serde(default)]
    pub result_characters: usize,
    /// Handling of a rollout whose agent failed or timed out.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Maximum retries of such a rollout, with `on_failure = "retry"`.
    #[serde(default = "one_more")]
    pub retries: usize,
}

fn one_more() -> usize {
    1
}

impl AgentConfig {
    /// An agent with the defaults of an experiment file, without benchmark keys.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            prompt: full(),
            max_turns: four(),
            own: Values::default(),
            result_characters: 0,
            on_failure: OnFailure::default(),
            retries: one_more(),
        }
    }
}

fn full() -> String {
    "full".to_owned()
}

fn four() -> usize {
    4
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DataConfig {
    /// Sources of training tasks; without weights, files are mixed by their size.
    pub train: Vec<String>,
    /// Relative frequency of each source among the tasks (reinforcement only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
    /// Sources of held-out tasks.
    pub test: Vec<String>,
    #[serde(flatten, skip_deserializing)]
    pub own: Values,
    /// Maximum number of training tasks from each source; 0 is all.
    #[serde(default)]
    pub train_limit: usize,
    /// Labels of training tasks that are left out, as `name=value`.
    #[serde(default)]
    pub train_exclude: Vec<String>,
    /// Number of copying exercises before the pretraining data of generated worlds (supervised
    /// only).
    #[serde(default)]
    pub exercises: u64,
    /// Quality of the demonstrations of generated worlds (supervised only).
    #[serde(default)]
    pub demonstrations: Demonstrations,
    /// A run folder whose successful training rollouts are imitated instead of demonstrations
    /// (supervised only); none if empty.
    #[serde(default)]
    pub successes: String,
    /// Minimum reward of imitated rollouts.
    #[serde(default = "whole")]
    pub success_reward: f64,
    /// Maximum length of a demonstration in tokens; longer ones are skipped (supervised only).
    #[serde(default = "default_demonstration_tokens")]
    pub demonstration_tokens: usize,
    /// Seed of generated worlds and of splits; separate from the run's seed, so that runs share a
    /// test set.
    #[serde(default)]
    pub seed: u64,
    /// The levels of tasks and when they open (reinforcement only); all are open if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<CurriculumConfig>,
}

/// The demonstrations of a generated world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demonstrations {
    /// The pretraining data of its base model: correct protocol, mostly wrong choices, on tasks
    /// that no run uses.
    #[default]
    Noisy,
    /// The training tasks of a run with correct solutions.
    Gold,
}

fn whole() -> f64 {
    1.0
}

fn default_demonstration_tokens() -> usize {
    1024
}

impl Default for DataConfig {
    /// No tasks.
    fn default() -> Self {
        Self {
            train: Vec::new(),
            weights: Vec::new(),
            test: Vec::new(),
            own: Values::default(),
            train_limit: 0,
            train_exclude: Vec::new(),
            exercises: 0,
            demonstrations: Demonstrations::default(),
            successes: String::new(),
            success_reward: whole(),
            demonstration_tokens: default_demonstration_tokens(),
            seed: 0,
            curriculum: None,
        }
    }
}

/// The reward of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// `default` is the dataset's scorer.
    pub name: String,
    /// Program and arguments that compute rewards instead; none if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Timeout of the program for one reward, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<f64>,
    /// Number of processes of the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
    /// Probability that training sees 1 − r instead of r.
    pub flip: f64,
    /// Added to the training reward for each call of a rollout.
    pub per_call: f64,
    /// Added to the training reward for each generated token of a rollout.
    pub per_token: f64,
    /// Training sees 1 for every well-formed rollout, regardless of its answer, and 0 for others.
    pub format_only: bool,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            command: Vec::new(),
            deadline: None,
            processes: None,
            flip: 0.0,
            per_call: 0.0,
            per_token: 0.0,
            format_only: false,
        }
    }
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
    /// Maximum number of tokens in the KV cache of one round.
    pub cache_tokens: usize,
    /// Engines that share the rollouts, each with its own threads; see [`Experiment::engines`].
    pub engines: usize,
    /// Maximum number of times that a step samples further tasks to replace those without reward
    /// variance (DAPO's dynamic sampling); 0 is off.
    pub refills: usize,
    /// Completions per state value estimate (credit monte_carlo).
    pub completions: usize,
    pub schedule: Schedule,
    /// Timeout of one engine request in seconds (continuous schedule); 0 is unlimited.
    pub call_deadline: f64,
    /// Timeout of an agent between a reply and its next request or its end, in seconds.
    pub turn_deadline: f64,
    /// Timeout of a rollout in seconds.
    pub rollout_deadline: f64,
    /// Timeout of all rollouts of a step in seconds.
    pub step_deadline: f64,
    /// Minimum number of rollouts with a reward per step; with fewer the run stops.
    pub at_least: usize,
}

impl RolloutConfig {
    pub fn deadlines(&self) -> Deadlines {
        let limit =
            |seconds: f64| (seconds > 0.0).then(|| std::time::Duration::from_secs_f64(seconds));
        Deadlines {
            call: limit(self.call_deadline),
            turn: limit(self.turn_deadline),
            rollout: limit(self.rollout_deadline),
            step: limit(self.step_deadline),
        }
    }
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
            engines: 1,
            refills: 0,
            completions: 4,
            schedule: Schedule::default(),
            call_deadline: 0.0,
            turn_deadline: 600.0,
            rollout_deadline: 0.0,
            step_deadline: 0.0,
            at_least: 1,
        }
    }
}

/// The source of the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Rewards of the agent's own rollouts.
    Reinforcement,
    /// Demonstrations.
    Supervised,
}

/// Which common prefixes of rows are computed once. The gradient is the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Common prefixes of any rows.
    #[default]
    Forest,
    /// Common prefixes of the calls of one rollout.
    Trajectories,
    /// None: every row is computed separately.
    Rows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    Adamw,
    Muon,
}

/// Responses that were cut off by the token limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncated {
    /// They are trained like others: the policy learns to be shorter.
    #[default]
    Train,
    /// They are neither trained nor compared (overlong filtering of DAPO, arXiv 2503.14476).
    Mask,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    pub objective: Objective,
    pub steps: u64,
    /// A run folder whose latest checkpoint the run starts from, or `RUN@STEP`; none if empty.
    pub init_from: String,
    /// Whether it also starts from the state of that run's optimiser.
    pub init_moments: bool,
    pub optimizer: OptimizerName,
    pub learning_rate: f64,
    /// Muon's learning rate for the layers' matrices.
    pub matrix_learning_rate: f64,
    pub schedule: String,
    pub warmup: u64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub grad_clip: f64,
    pub epochs: usize,
    pub mini_batches: usize,
    /// Tokens per forward and backward pass, after merging prefixes.
    pub micro_batch_tokens: usize,
    /// Replicas of the policy that share the micro-batches; see [`Experiment::replicas`].
    pub replicas: usize,
    pub layout: Layout,
    pub activation_checkpointing: bool,
    /// Roles that are trained; empty is all.
    pub roles: Vec<String>,
    /// Calls with a longer prompt are excluded from training.
    pub max_prompt_tokens: usize,
    /// Whether responses that were cut off by the token limit are trained.
    pub truncated: Truncated,
    /// Consecutive steps without reward variance after which the run stops.
    pub patience_without_variance: u64,
    /// Demonstrations per step (supervised only).
    pub batch: usize,
    /// Number of updates by which the weights that sample a step's rollouts are behind; see
    /// [`crate::staleness`].
    pub staleness: u64,
    pub replay: ReplayConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            objective: Objective::Reinforcement,
            steps: 100,
            init_from: String::new(),
            init_moments: false,
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
            replicas: 1,
            layout: Layout::Forest,
            activation_checkpointing: false,
            roles: Vec::new(),
            max_prompt_tokens: 4096,
            truncated: Truncated::default(),
            patience_without_variance: 20,
            batch: 32,
            staleness: 0,
            replay: ReplayConfig::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    pub every: u64,
    pub tasks: usize,
    /// Which tasks are taken if the files have more.
    pub selection: TestSelection,
    /// Labels by which a stratified selection is proportional; the dataset's own if empty.
    pub strata: Vec<String>,
    /// Rollouts of each task in sampled evaluations.
    pub samples: usize,
    pub modes: Vec<String>,
    pub temperature: f64,
    pub max_tokens: usize,
}

/// Which test tasks are evaluated if there are more than `eval.tasks`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestSelection {
    /// A random sample, drawn with `data.seed` and proportional to the sizes of the strata.
    #[default]
    Stratified,
    /// The first ones, which in a sorted file may come from a few databases only.
    First,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every: 32,
            tasks: 256,
            selection: TestSelection::default(),
            strata: Vec::new(),
            samples: 1,
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
