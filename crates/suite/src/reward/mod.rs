//! Rewards that any benchmark can be given, by name or as a program of the user's own.
//!
//! They judge the answer alone: its last `<answer>…</answer>`, else what stands in its last
//! `### ANSWER: … ###`, else all of it. So they serve agents that were not written with them in
//! mind.

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

/// Seconds that a program may take for a reward, where nobody says how many.
const SECONDS: f64 = 30.0;

/// Processes of a program, where nobody says how many.
const PROCESSES: usize = 2;

/// The reward that an experiment asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Reward {
    /// One that the benchmark has, by its name.
    Own(String),
    Rule(Rule),
    Program(Program),
}

impl Reward {
    /// Reads `[reward]`; `own` are names that the benchmark has besides `default`.
    ///
    /// # Errors
    /// A name that there is not, both a name and a command, limits that are none.
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

    /// Whether it is the benchmark's.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The scorer; `own` makes the benchmark's, of which it is given the name.
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

    /// What the provenance says of a dataset that has nothing else to say.
    pub fn provenance(&self) -> Value {
        if self.is_own() { Value::Null } else { json!({ "reward": self.described() }) }
    }

    /// What the provenance says of it; null of the benchmark's own.
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
