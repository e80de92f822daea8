//! What a benchmark is told of an experiment.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use leyden_train::Experiment;
use leyden_train::config::{AgentConfig, DataConfig, Demonstrations, RewardConfig, Values};

use crate::registry::Registry;

/// What a benchmark is told of an experiment.
#[derive(Debug, Clone)]
pub struct BenchmarkSettings {
    pub agent: AgentConfig,
    pub data: DataConfig,
    /// Tables that benchmarks declare.
    pub own: Values,
    pub reward: RewardConfig,
    /// Where encoders of passages run.
    pub device: String,
    /// Folder of the run, where there is one.
    pub run: Option<PathBuf>,
}

impl BenchmarkSettings {
    pub fn of(experiment: &Experiment) -> Self {
        Self {
            agent: experiment.agent.clone(),
            data: experiment.data.clone(),
            own: experiment.own.clone(),
            reward: experiment.reward.clone(),
            device: experiment.model.device.clone(),
            run: None,
        }
    }

    /// Every key at its default, without tasks, for the agent of this name.
    ///
    /// # Errors
    /// Where there is no such agent.
    pub fn defaults(registry: &Registry, agent: &str) -> Result<Self> {
        let benchmark = registry.get(agent)?;
        let own = registry.defaults();
        let agent = AgentConfig {
            own: own.agent,
            max_turns: benchmark.max_turns(),
            ..AgentConfig::of(agent)
        };
        Ok(Self {
            agent,
            data: DataConfig { own: own.data, ..DataConfig::default() },
            own: own.tables,
            reward: RewardConfig::default(),
            device: "cpu".to_owned(),
            run: None,
        })
    }

    fn value(&self, path: &str) -> Result<&toml::Value> {
        let found = match path.split_once('.') {
            Some(("agent", rest)) => self.agent.own.get(rest),
            Some(("data", rest)) => self.data.own.get(rest),
            _ => self.own.get(path),
        };
        found.ok_or_else(|| anyhow!("{path}: no benchmark of this program declares this key"))
    }

    /// Sets a key that a benchmark declares.
    ///
    /// # Errors
    /// Where none does.
    pub fn set(&mut self, path: &str, value: impl Into<toml::Value>) -> Result<()> {
        let value = value.into();
        let done = match path.split_once('.') {
            Some(("agent", rest)) => self.agent.own.set(rest, value),
            Some(("data", rest)) => self.data.own.set(rest, value),
            _ => self.own.set(path, value),
        };
        if !done {
            bail!("{path}: no benchmark of this program declares this key");
        }
        Ok(())
    }

    /// The text of a key that a benchmark declares.
    ///
    /// # Errors
    /// Where none does, as with the others.
    pub fn text(&self, path: &str) -> Result<&str> {
        let value = self.value(path)?;
        value.as_str().ok_or_else(|| anyhow!("{path}: `{value}` is not a string"))
    }

    /// The whole number of a key.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn number(&self, path: &str) -> Result<u64> {
        let value = self.value(path)?;
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| anyhow!("{path}: `{value}` is not a whole number"))
    }

    /// As [`BenchmarkSettings::number`], for counts.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn count(&self, path: &str) -> Result<usize> {
        Ok(usize::try_from(self.number(path)?)?)
    }

    /// The value of a key that is true or false.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn flag(&self, path: &str) -> Result<bool> {
        let value = self.value(path)?;
        value.as_bool().ok_or_else(|| anyhow!("{path}: `{value}` is neither true nor false"))
    }

    /// The list of texts of a key.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn texts(&self, path: &str) -> Result<Vec<String>> {
        let value = self.value(path)?;
        let texts = value.as_array().into_iter().flatten();
        Ok(texts.filter_map(|text| text.as_str().map(str::to_owned)).collect())
    }

    /// Names and texts of a key that is a table.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn table(&self, path: &str) -> Result<std::collections::BTreeMap<String, String>> {
        let entries = self.value(path)?.as_table().into_iter().flatten();
        let text =
            |(name, text): (&String, &toml::Value)| Some((name.clone(), text.as_str()?.to_owned()));
        Ok(entries.filter_map(text).collect())
    }

    /// Whether a generated world shows its training tasks solved.
    pub fn gold(&self) -> bool {
        self.data.demonstrations == Demonstrations::Gold
    }

    /// How much the agent's prompts explain: whether only one line.
    ///
    /// # Errors
    /// Another word than full and compact.
    pub fn compact(&self) -> Result<bool> {
        match self.agent.prompt.as_str() {
            "full" => Ok(false),
            "compact" => Ok(true),
            other => bail!("agent.prompt: `{other}`: use full or compact"),
        }
    }

    /// Refuses a reward that the benchmark does not have.
    ///
    /// # Errors
    /// Every reward but the default.
    pub fn only_default_reward(&self) -> Result<()> {
        match self.reward.name.as_str() {
            "default" => Ok(()),
            other => bail!(
                "reward.name: the agent {} has no reward `{other}`; use default",
                self.agent.name
            ),
        }
    }
}
