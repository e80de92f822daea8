//! Rewards for any benchmark, by name or as a user's program.
//!
//! They score only the answer: its last `<answer>…</answer>`, else the content of its last
//! `### ANSWER: … ###`, else the whole answer. So they work with any agent.

mod command;
mod process;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use leyden_core::Scorer;
use serde_json::{Value, json};

pub use command::{CommandScorer, Program};
pub use rules::Rule;

use crate::settings::BenchmarkSettings;

/// Default time limit of a program per reward, in seconds.
const SECONDS: f64 = 30.0;

/// Default number of processes of a program.
const PROCESSES: usize = 2;

/// The reward configured in an experiment.
#[derive(Debug, Clone, PartialEq)]
pub enum Reward {
    /// A reward of the benchmark, by name.
    Own(String),
    Rule(Rule),
    Program(Program),
}

impl Reward {
    /// Reads `[reward]`; `own` are the benchmark's reward names besides `default`.
    ///
    /// # Errors
    /// An unknown name, both a name and a command, invalid limits.
    pub fn of(settings: &BenchmarkSettings, own: &[&str]) -> Result<Self> {
        let reward = &settings.reward;
        let name = reward.name.as_str();
        if !reward.command.is_empty() {
            if name != "default" {
                bail!("reward.command: a command and the reward {name} exclude each other");
            }
            let seconds = reward.deadline.unwrap_or(SECONDS);
            if !(seconds > 0.0 && seconds <= 86_400.0) {
                bail!("reward.deadline: {seconds} must be positive, and at most a day");
            }
            return Ok(Self::Program(Program {
                command: reward.command.clone(),
                deadline: Duration::from_secs_f64(seconds),
                processes: reward.processes.unwrap_or(PROCESSES).max(1),
            }));
        }
        if name == "default" || own.contains(&name) {
            return Ok(Self::Own(name.to_owned()));
        }
        match Rule::ALL.into_iter().find(|rule| rule.name() == name) {
            Some(rule) => Ok(Self::Rule(rule)),
            None => {
                let mut known = vec!["default"];
                known.extend_from_slice(own);
                known.extend(Rule::ALL.iter().map(|rule| rule.name()).filter(|n| !own.contains(n)));
                bail!(
                    "reward.name: the agent {} has no reward `{name}`; use {}",
                    settings.agent.name,
                    known.join(", ")
                )
            }
        }
    }

    /// Whether it is one of the benchmark's own rewards.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Creates the scorer; `own` creates the benchmark's own scorer from the reward's name.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn scorer(&self, own: impl FnOnce(&str) -> Arc<dyn Scorer>) -> Result<Arc<dyn Scorer>> {
        Ok(match self {
            Self::Own(name) => own(name),
            Self::Rule(rule) => Arc::new(*rule),
            Self::Program(program) => Arc::new(CommandScorer::start(program.clone())?),
        })
    }

    /// Provenance of a dataset without other entries.
    pub fn provenance(&self) -> Value {
        if self.is_own() { Value::Null } else { json!({ "reward": self.described() }) }
    }

    /// Provenance entry of the reward; null for the benchmark's own.
    pub fn described(&self) -> Value {
        match self {
            Self::Own(_) => Value::Null,
            Self::Rule(rule) => json!(rule.name()),
            Self::Program(program) => {
                let files = program.command.iter().filter_map(|word| {
                    let hash = leyden_train::provenance::hash_file(std::path::Path::new(word));
                    Some((word.clone(), json!(hash.ok()?)))
                });
                let files: serde_json::Map<String, Value> = files.collect();
                json!({ "command": program.command, "sha256": files })
            }
        }
    }
}
