//! The part of an experiment's configuration that a benchmark receives.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use leyden_train::Experiment;
use leyden_train::config::{
    AgentConfig, DataConfig, Demonstrations, OwnKey, Preset, RewardConfig, Values,
};

use crate::registry::Registry;

/// The part of an experiment's configuration that a benchmark receives.
#[derive(Debug, Clone)]
pub struct BenchmarkSettings {
    pub agent: AgentConfig,
    pub data: DataConfig,
    /// Tables declared by benchmarks.
    pub own: Values,
    pub reward: RewardConfig,
    /// Device of passage encoders.
    pub device: String,
    /// Folder of the run, if there is one.
    pub run: Option<PathBuf>,
}

/// The key of the process reward, which benchmarks share.
pub(crate) const PROCESS_REWARD: &str = "agent.process_reward";

pub(crate) fn process_reward_key() -> OwnKey {
    OwnKey::new(
        PROCESS_REWARD,
        Preset::Number(0.0),
        "reward of a call besides the outcome's: sql: its query runs and returns rows; rag: times \
         the share of the supporting passages that its search found first",
    )
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

    /// Default settings without tasks, for the agent of this name.
    ///
    /// # Errors
    /// No such agent.
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

    /// Sets a benchmark's key.
    ///
    /// # Errors
    /// A key that no benchmark declares.
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

    /// The text value of a benchmark's key.
    ///
    /// # Errors
    /// A key that no benchmark declares, or a value of another type.
    pub fn text(&self, path: &str) -> Result<&str> {
        let value = self.value(path)?;
        value.as_str().ok_or_else(|| anyhow!("{path}: `{value}` is not a string"))
    }

    /// The non-negative integer value of a key.
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

    /// The value of a key that is a number.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`]; a number that is not finite.
    pub fn real(&self, path: &str) -> Result<f64> {
        let value = self.value(path)?;
        let whole = || value.as_integer().map(|number| number as f64);
        let number = value.as_float().or_else(whole).filter(|number| number.is_finite());
        number.ok_or_else(|| anyhow!("{path}: `{value}` is not a number"))
    }

    /// The Boolean value of a key.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn flag(&self, path: &str) -> Result<bool> {
        let value = self.value(path)?;
        value.as_bool().ok_or_else(|| anyhow!("{path}: `{value}` is neither true nor false"))
    }

    /// The value of a key that is a list of texts.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn texts(&self, path: &str) -> Result<Vec<String>> {
        let value = self.value(path)?;
        let texts = value.as_array().into_iter().flatten();
        Ok(texts.filter_map(|text| text.as_str().map(str::to_owned)).collect())
    }

    /// The value of a key that is a table of texts.
    ///
    /// # Errors
    /// As [`BenchmarkSettings::text`].
    pub fn table(&self, path: &str) -> Result<std::collections::BTreeMap<String, String>> {
        let entries = self.value(path)?.as_table().into_iter().flatten();
        let text =
            |(name, text): (&String, &toml::Value)| Some((name.clone(), text.as_str()?.to_owned()));
        Ok(entries.filter_map(text).collect())
    }

    /// Whether demonstrations of a generated world are solutions of its training tasks.
    pub fn gold(&self) -> bool {
        self.data.demonstrations == Demonstrations::Gold
    }

    /// Whether the agent uses the compact, one-line prompt.
    ///
    /// # Errors
    /// A value other than full and compact.
    pub fn compact(&self) -> Result<bool> {
        match self.agent.prompt.as_str() {
            "full" => Ok(false),
            "compact" => Ok(true),
            other => bail!("agent.prompt: `{other}`: use full or compact"),
        }
    }

    /// Rejects a reward that the benchmark does not have.
    ///
    /// # Errors
    /// A reward other than the default.
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
