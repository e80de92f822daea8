//! From the text of an experiment file, and overrides on top, to an [`Experiment`] whose values
//! are possible.

use std::path::Path;

use leyden_rl::needs::Capabilities;

use super::error::ConfigError;
use super::{Experiment, Objective};

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
            what: sentence(&e, text),
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
                            what: sentence(&with_overrides, ""),
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

    /// What [`Experiment::to_toml`] would write today of what an older version wrote: keys that
    /// it did not know are at their defaults. A text that is no experiment stays as it is.
    pub fn rewritten(text: &str) -> String {
        let known: Result<Self, _> = toml::from_str(text);
        known.map_or_else(|_| text.to_owned(), |experiment| experiment.to_toml())
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
            ("rollout.completions", self.rollout.completions),
            ("rollout.engines", self.rollout.engines),
            ("rollout.at_least", self.rollout.at_least),
            (
                "agent.external.processes",
                self.agent.external.as_ref().map_or(1, |external| external.processes),
            ),
            ("train.epochs", self.train.epochs),
            ("critic.epochs", self.critic.epochs),
            ("train.mini_batches", self.train.mini_batches),
            ("train.micro_batch_tokens", self.train.micro_batch_tokens),
            ("train.replicas", self.train.replicas),
            ("train.batch", self.train.batch),
            ("agent.max_turns", self.agent.max_turns),
            ("agent.passages", self.agent.passages),
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
            ("critic.learning_rate", self.critic.learning_rate),
            ("critic.clip", self.critic.clip),
            ("eval.temperature", self.eval.temperature),
            ("rollout.call_deadline", self.rollout.call_deadline),
            ("rollout.turn_deadline", self.rollout.turn_deadline),
            ("rollout.rollout_deadline", self.rollout.rollout_deadline),
            ("rollout.step_deadline", self.rollout.step_deadline),
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
        if !(0.0..=1.0).contains(&self.reward.flip) {
            return refuse("reward.flip", "is a probability: from 0 to 1".to_owned());
        }
        for (key, value) in
            [("reward.per_call", self.reward.per_call), ("reward.per_token", self.reward.per_token)]
        {
            if !value.is_finite() {
                return refuse(key, format!("{value} must be a number"));
            }
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
        // The agent is not known here: the trainer asks again with its own.
        if let Err(e) = self.algorithm.validate().and_then(|()| self.check_capabilities(true)) {
            return refuse("algorithm", e.to_string());
        }
        Ok(())
    }

    /// Whether a run has what the algorithm needs, with an agent whose episodes can be scored as
    /// they stood without a call, or not.
    pub(crate) fn check_capabilities(
        &self,
        counterfactuals: bool,
    ) -> Result<(), leyden_rl::error::ConfigError> {
        match self.train.objective {
            Objective::Supervised => Ok(()),
            Objective::Reinforcement => self.algorithm.check(&Capabilities {
                samples: self.rollout.samples,
                critic: true,
                reference: true,
                anchors: true,
                counterfactuals,
                branching: true,
            }),
        }
    }
}

/// What is wrong with the TOML of `text` on one line, with the line it is on where known.
fn sentence(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim_end().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
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
    fn what_an_older_version_wrote_is_the_same_experiment() {
        let whole = parse(SMALLEST, &["rollout.samples=3"]).unwrap().to_toml();
        let older = whole.replace("engines = 1\n", "").replace("replicas = 1\n", "");
        assert_ne!(older, whole);
        assert_eq!(Experiment::rewritten(&older), whole);
        assert_eq!(Experiment::rewritten("samples = 2"), "samples = 2");
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
    fn who_shares_the_work_fits_the_machine() {
        let workers = |overrides: &[&str]| {
            let several = ["rollout.engines=2", "train.replicas=2"];
            let e = parse(SMALLEST, &[&several, overrides].concat()).unwrap();
            (e.engines(), e.replicas())
        };
        let lora = "model.lora={rank = 4, alpha = 8.0, targets = ['q']}";
        assert_eq!(workers(&["model.threads=4"]), (2, 2));
        assert_eq!(workers(&["model.threads=1"]), (1, 1));
        assert_eq!(workers(&["model.threads=4", "model.device=cuda:0"]), (1, 1));
        assert_eq!(workers(&["model.threads=4", lora]), (2, 1));
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
            (SMALLEST, &["algorithm.credit.name=gigpo"], "grpo would compare that again"),
            (SMALLEST, &["reward.flip=1.5"], "reward.flip"),
            (SMALLEST, &["reward.per_token=inf"], "reward.per_token"),
            (SMALLEST, &["rollout.samples=1"], "every advantage is 0"),
            (SMALLEST, &["train.replicas=0"], "train.replicas"),
            (SMALLEST, &["name=../x"], "folder"),
            (SMALLEST, &["model.source.x=1"], "not a table"),
        ] {
            let error = parse(text, overrides).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = parse(&SMALLEST.replace("steps", "stepz"), &[]).unwrap_err().to_string();
        assert!(error.contains("line 10"), "{error}");
        let error = parse(&SMALLEST.replace("steps =", "steps"), &[]).unwrap_err().to_string();
        assert!(error.contains("line 10") && !error.contains('\n'), "{error}");
    }
}
