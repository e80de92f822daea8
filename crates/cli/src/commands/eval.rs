//! `leyden eval`: evaluates a model with an agent on a set of tasks, without training.
//!
//! Rollouts run as in training and use the same seeds: `--seed 1` draws the same samples as the
//! first evaluation of a run with seed 1.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use leyden_core::Task;
use leyden_suite::evaluation::{self, EvaluationSettings, Mode, output::Output, summary};
use leyden_suite::model::{self, tiny};
use leyden_suite::sources::Selection;
use leyden_suite::{Benchmark, Dataset, Registry, TEST_TASKS, Train, sources};
use leyden_text::ControlTokens;
use leyden_train::{Experiment, provenance};
use serde_json::{Value, json};

use super::new_folder;
use crate::start;

/// Arguments of `leyden eval`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The agent
    #[arg(long)]
    agent: Option<String>,
    /// tiny, a folder, a .gguf file, or a hub id (owner/name)
    #[arg(long)]
    model: String,
    /// Generated worlds or files of tasks
    #[arg(long, required = true, num_args = 1.., value_name = "NAME")]
    data: Vec<String>,
    /// Maximum number of tasks per source, spread evenly over a file; 0 is all (256 of a world)
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// System prompt; by default that of the run that trained the model, compact for tiny, else
    /// full
    #[arg(long)]
    prompt: Option<PromptName>,
    /// Maximum number of model calls per rollout; by default as for --prompt, else the agent's own
    #[arg(long)]
    max_turns: Option<usize>,
    /// The reward, if not the agent's default
    #[arg(long)]
    reward: Option<String>,
    /// Decoding modes
    #[arg(long, value_delimiter = ',', default_value = "sampled,greedy")]
    modes: Vec<Mode>,
    /// Temperature of the sampled mode
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Rollouts per task in the sampled mode, for mean@k, pass@k and majority@k
    #[arg(long, default_value_t = 1)]
    samples: usize,
    /// Maximum number of tokens per response
    #[arg(long, default_value_t = 2048)]
    max_tokens: usize,
    /// Root of the seed tree
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seed of a generated world
    #[arg(long, default_value_t = 0)]
    data_seed: u64,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Number type of the forward pass: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Threads of libtorch and of the tools; by default one per core
    #[arg(long)]
    threads: Option<usize>,
    /// Context length in tokens; 0 is the model's own
    #[arg(long, default_value_t = 0)]
    context: usize,
    /// Capacity of the KV cache in tokens
    #[arg(long, default_value_t = 262_144)]
    cache_tokens: usize,
    /// How the name of a control token inside a message is encoded: text, or template for the
    /// control token itself
    #[arg(long, default_value = "text", value_name = "HOW")]
    control_tokens: ControlTokens,
    /// Folder for predictions, metrics and rollouts; by default a new one in runs/
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PromptName {
    Full,
    Compact,
}

/// Runs the evaluation; `keys` are the configuration keys set on the command line.
pub fn run(
    arguments: &Arguments,
    keys: &[(&'static str, String)],
    registry: &Registry,
) -> Result<ExitCode> {
    let settings = arguments.settings()?;
    let benchmark = arguments.benchmark(registry)?;
    let setup = arguments.setup(benchmark, keys, registry)?;
    let dataset = benchmark.prepare(setup.clone(), registry)?;
    let (tasks, described) = arguments.tasks(dataset.as_ref(), registry)?;
    let assembled = dataset.assemble(Train::Tasks(&[]), &tasks, false)?;
    start::set_threads(arguments.threads())?;
    let (model, model_described) = model::load(&arguments.model, arguments.control_tokens)?;
    let mut engine = evaluation::engine(&model, &settings)?;
    let mut output = Output::create(&new_folder(arguments.out.as_deref(), &arguments.name())?)?;
    output.config(&arguments.resolved(&setup, &tasks))?;
    let mut own = model_described;
    own.insert("data".to_owned(), json!({ "test": described, "with": assembled.described }));
    own.insert("seed".to_owned(), json!(arguments.seed));
    output.provenance(&provenance::collect(own))?;

    let mut summaries = Vec::new();
    for &mode in &arguments.modes {
        let rollouts = evaluation::evaluate(
            (&mut engine, &model.format),
            benchmark,
            (assembled.agent.as_ref(), assembled.scorer.as_ref()),
            &tasks,
            mode,
            &settings,
            &mut output,
        )?;
        let record = output.record(mode, &tasks, &rollouts, assembled.scorer.as_ref())?;
        let summary = summary::Summary::of(benchmark, mode.name(), &tasks, &rollouts);
        summaries.push(summary.with_depth(record.depth));
    }
    println!(
        "{} on {}, {} prompt, model {}\n",
        benchmark.name(),
        arguments.data.join(", "),
        setup.agent.prompt,
        arguments.model
    );
    let table = summary::table(&summaries);
    print!("{table}");
    output.summary(&table)?;
    println!("\nwritten: {}", output.folder().display());
    if let Some(reason) = summaries.iter().find_map(summary::Summary::nothing_scored) {
        bail!("no rollout has a reward; the first error: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

/// At most `limit` of `tasks`, spread evenly because files are often sorted; 0 is all.
fn spread(tasks: Vec<Task>, limit: usize) -> Vec<Task> {
    let total = tasks.len();
    if limit == 0 || limit >= total {
        return tasks;
    }
    // The task at position i is taken if i * limit / total increases at i + 1.
    let taken = |i: &usize| i * limit / total != (i + 1) * limit / total;
    let mut position = 0..total;
    tasks.into_iter().filter(|_| position.next().is_some_and(|i| taken(&i))).collect()
}

/// Rejects duplicate task ids, which would be ambiguous in the output.
fn check_ids(tasks: &[Task]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    match tasks.iter().find(|task| !seen.insert(&task.id)) {
        Some(task) => bail!("--data: duplicate task id {}", task.id),
        None => Ok(()),
    }
}

impl Arguments {
    /// All tasks; with several sources, each task is labelled with its source.
    fn tasks(&self, dataset: &dyn Dataset, registry: &Registry) -> Result<(Vec<Task>, Value)> {
        let of_world = if self.limit == 0 { TEST_TASKS } else { self.limit };
        let mut all = Vec::new();
        let mut described = Vec::new();
        for name in &self.data {
            let one = std::slice::from_ref(name);
            let (tasks, description) =
                sources::tasks(registry, one, &Selection::default(), dataset, of_world)?;
            let mut tasks = spread(tasks, self.limit);
            if self.data.len() > 1 {
                for task in &mut tasks {
                    task.labels.push(("data".to_owned(), name.clone()));
                }
            }
            all.extend(tasks);
            described.push(description);
        }
        check_ids(&all)?;
        Ok((all, Value::Array(described)))
    }

    fn settings(&self) -> Result<EvaluationSettings> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            bail!("--temperature {}: must be positive; for 0 use --modes greedy", self.temperature);
        }
        if self.max_tokens == 0 || self.cache_tokens == 0 || self.samples == 0 {
            bail!("--max-tokens, --cache-tokens and --samples must be at least 1");
        }
        Ok(EvaluationSettings {
            device: leyden_lm::device::parse_device(&self.device)?,
            kind: leyden_lm::device::parse_kind(&self.dtype)?,
            temperature: self.temperature,
            samples: self.samples,
            max_tokens: self.max_tokens,
            context: self.context,
            cache_tokens: self.cache_tokens,
            seed: self.seed,
        })
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(cores).max(1)
    }

    /// The benchmark of `--agent`, or the first one.
    fn benchmark<'a>(&self, registry: &'a Registry) -> Result<&'a dyn Benchmark> {
        match &self.agent {
            Some(name) => registry.get(name),
            None => registry.iter().next().context("this program has no benchmark"),
        }
    }

    /// The agent's settings. They default to those of the run that trained the model; for an
    /// embedded model, to those of its pretraining.
    fn setup(
        &self,
        benchmark: &dyn Benchmark,
        keys: &[(&'static str, String)],
        registry: &Registry,
    ) -> Result<leyden_suite::BenchmarkSettings> {
        let name = benchmark.name();
        let trained =
            trained_with(Path::new(&self.model), registry).filter(|e| e.agent.name == name);
        let world = || tiny::world_for(registry, &self.model, name, &self.data);
        let mut setup = match &trained {
            Some(experiment) => leyden_suite::BenchmarkSettings::of(experiment),
            None => match world() {
                Some(world) => tiny::settings(registry, world, self.data_seed)?,
                None => leyden_suite::BenchmarkSettings::defaults(registry, name)?,
            },
        };
        if let Some(prompt) = self.prompt {
            let name = match prompt {
                PromptName::Full => "full",
                PromptName::Compact => "compact",
            };
            name.clone_into(&mut setup.agent.prompt);
        }
        if let Some(max_turns) = self.max_turns {
            if max_turns == 0 {
                bail!("--max-turns must be at least 1");
            }
            setup.agent.max_turns = max_turns;
        }
        if let Some(reward) = &self.reward {
            setup.reward.name.clone_from(reward);
        }
        for (key, value) in keys {
            setup.set(key, value.as_str())?;
        }
        setup.data.seed = self.data_seed;
        setup.device.clone_from(&self.device);
        Ok(setup)
    }

    /// `eval-` and the model's name.
    fn name(&self) -> String {
        let stem = self.model.trim_end_matches('/').trim_end_matches("/final");
        let stem = stem.rsplit('/').next().unwrap_or(stem).trim_end_matches(".gguf");
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        format!("eval-{}", stem.chars().map(plain).collect::<String>())
    }

    /// All settings, in the format of an experiment.
    fn resolved(&self, setup: &leyden_suite::BenchmarkSettings, tasks: &[Task]) -> Value {
        let modes: Vec<&str> = self.modes.iter().map(|mode| mode.name()).collect();
        let mut resolved = json!({
            "name": self.name(),
            "seed": self.seed,
            "model": {
                "source": self.model,
                "device": self.device,
                "dtype": self.dtype,
                "threads": self.threads(),
                "context": self.context,
            },
            "agent": setup.agent,
            "data": {
                "test": self.data,
                "limit": self.limit,
                "seed": self.data_seed,
            },
            "reward": setup.reward,
            "eval": {
                "tasks": tasks.len(),
                "modes": modes,
                "samples": self.samples,
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
            },
        });
        for (name, value) in setup.data.own.iter() {
            resolved["data"][name] = json!(value);
        }
        for (name, table) in setup.own.iter() {
            resolved[name] = json!(table);
        }
        resolved
    }
}

/// The experiment of the run folder that contains the model as `final`.
fn trained_with(model: &Path, registry: &Registry) -> Option<Experiment> {
    let config = model.parent()?.join("config.toml");
    if !config.is_file() {
        return None;
    }
    Experiment::read(&config, &[], registry).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Arguments {
        let words = ["eval"].into_iter().chain(line.split_whitespace());
        Command::try_parse_from(words).map_err(|e| e.to_string()).unwrap().arguments
    }

    #[test]
    fn settings_default_to_those_of_training() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("final");
        let line = format!("--model {} --data mini-calc", model.display());
        let registry = leyden_suite::registry();
        let of = |line: &str| {
            let arguments = arguments(line);
            let benchmark = arguments.benchmark(&registry).unwrap();
            arguments.setup(benchmark, &[], &registry).unwrap().agent
        };
        assert_eq!(of(&line).prompt, "full");
        assert_eq!(of("--model tiny --data mini-calc").prompt, "compact");
        let config = "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'calc'\n\
            prompt = 'compact'\nmax_turns = 7\n[data]\ntrain = ['mini-calc']\n\
            test = ['mini-calc']\n[train]\nsteps = 3\n";
        std::fs::write(root.path().join("config.toml"), config).unwrap();
        assert_eq!((of(&line).prompt.as_str(), of(&line).max_turns), ("compact", 7));
        let explicit = of(&format!("{line} --prompt full --max-turns 2"));
        assert_eq!((explicit.prompt.as_str(), explicit.max_turns), ("full", 2));
    }

    #[test]
    fn a_limit_spreads_over_the_file() {
        let task = |i: usize| Task {
            id: i.to_string(),
            question: String::new(),
            gold: String::new(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        };
        let ids = |limit| -> Vec<usize> {
            let taken = spread((0..10).map(task).collect(), limit);
            taken.iter().map(|task| task.id.parse().unwrap()).collect()
        };
        assert_eq!(ids(0).len(), 10);
        assert_eq!(ids(12).len(), 10);
        assert_eq!(ids(5), [1, 3, 5, 7, 9]);
        assert_eq!(ids(3), [3, 6, 9]);
    }

    #[test]
    fn folders_are_named_after_the_model() {
        for (model, name) in [
            ("tiny", "eval-tiny"),
            ("runs/smollm2/final/", "eval-smollm2"),
            ("a/x y.gguf", "eval-x-y"),
        ] {
            let mut arguments = arguments("--model x --data mini-calc");
            arguments.model = model.to_owned();
            assert_eq!(arguments.name(), name);
        }
    }

    #[test]
    fn invalid_settings_are_rejected() {
        for (line, named) in [
            ("--temperature 0", "--modes greedy"),
            ("--max-tokens 0", "--max-tokens"),
            ("--samples 0", "--samples"),
            ("--device tpu", "tpu"),
            ("--dtype int8", "int8"),
        ] {
            let line = format!("--model tiny --data mini-calc {line}");
            let error = arguments(&line).settings().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
