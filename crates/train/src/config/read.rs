//! Parsing and validation of experiment files with overrides.

use std::path::Path;

use leyden_rl::needs::Capabilities;

use super::curriculum::{CurriculumConfig, check_weights};
use super::error::ConfigError;
use super::schema::Schema;
use super::{Experiment, KeyError, Objective, OwnKey, TestSelection};

/// Longest deadline, some thirty years: a point in time so much later can be represented.
const MOST_SECONDS: f64 = 1e9;

impl Experiment {
    /// Reads an experiment file and applies `overrides` (`train.steps=40`); `schema` declares the
    /// keys of the benchmarks.
    ///
    /// # Errors
    /// A missing file, TOML that does not parse (with line), an unknown key, an override without
    /// `=`, or an invalid value.
    pub fn read(
        path: &Path,
        overrides: &[String],
        schema: &dyn Schema,
    ) -> Result<Self, ConfigError> {
        let file = |what: String| ConfigError::File { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|e| file(e.to_string()))?;
        Self::parse(&text, path, overrides, schema)
    }

    /// Like [`Experiment::read`], from text; `path` is for error messages.
    ///
    /// # Errors
    /// As [`Experiment::read`].
    pub fn parse(
        text: &str,
        path: &Path,
        overrides: &[String],
        schema: &dyn Schema,
    ) -> Result<Self, ConfigError> {
        let file = |what: String| ConfigError::File { path: path.to_owned(), what };
        let keys = schema.keys();
        // Parses the file without overrides, so that errors have line numbers.
        let plain = || {
            let plain: Self = toml::from_str(text).map_err(|e| sentence(&e, text))?;
            plain.resolved(&keys).map_err(|e| match line_of(text, &e.key) {
                Some(line) => format!("line {line}: {e}"),
                None => e.to_string(),
            })
        };
        let experiment = if overrides.is_empty() {
            plain().map_err(file)?
        } else {
            let mut table: toml::Table =
                toml::from_str(text).map_err(|e| file(sentence(&e, text)))?;
            for text in overrides {
                apply(&mut table, text)?;
            }
            let changed: Result<Self, _> = table.try_into();
            let changed = changed.map_err(|e| sentence(&e, ""));
            match changed.and_then(|changed| changed.resolved(&keys).map_err(|e| e.to_string())) {
                Ok(experiment) => experiment,
                Err(with_overrides) => {
                    plain().map_err(file)?;
                    return Err(ConfigError::Override {
                        text: overrides.join(" --set "),
                        what: with_overrides,
                    });
                }
            }
        };
        let reject =
            |KeyError { key, what }| ConfigError::Value { path: path.to_owned(), key, what };
        experiment.check(path)?;
        schema.check(&experiment).map_err(reject)?;
        Ok(experiment)
    }

    /// Resolves every key of `keys` to a value, and the algorithm's keys that depend on others.
    fn resolved(self, keys: &[OwnKey]) -> Result<Self, KeyError> {
        let Self { mut agent, mut data, own, algorithm, .. } = self;
        let tables = super::own::tables(keys);
        let known = |prefix: &str| -> Vec<&str> {
            let inner = super::reference::own().filter_map(move |key| key.strip_prefix(prefix));
            let mut names: Vec<&str> =
                inner.map(|path| path.split('.').next().unwrap_or(path)).collect();
            names.dedup();
            names
        };
        agent.own = agent.own.resolved(keys, "agent.", &known("agent."))?;
        data.own = data.own.resolved(keys, "data.", &known("data."))?;
        data.curriculum = data.curriculum.map(CurriculumConfig::resolved);
        let own = own.resolved(&tables, "", &known(""))?;
        let algorithm = algorithm.with_response_budget(self.rollout.max_tokens);
        Ok(Self { agent, data, own, algorithm, keys: keys.to_vec(), ..self })
    }

    /// The resolved experiment as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("an experiment is plain data")
    }

    /// Rewrites the output of an older version as [`Experiment::to_toml`] would write it now: keys
    /// unknown to that version get their defaults. A text that is not an experiment is returned
    /// unchanged.
    pub fn rewritten(text: &str, schema: &dyn Schema) -> String {
        rewritten(text, &schema.keys())
    }

    /// Like [`Experiment::rewritten`], with the key declarations of this experiment.
    pub fn rewritten_alike(&self, text: &str) -> String {
        rewritten(text, &self.keys)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let reject = |key: &str, what: String| {
            Err(ConfigError::Value { path: path.to_owned(), key: key.to_owned(), what })
        };
        let folder_name = !self.name.is_empty()
            && !self.name.starts_with('.')
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !folder_name {
            return reject("name", format!("`{}` is not a valid folder name", self.name));
        }
        for (key, value) in [
            ("rollout.tasks", self.rollout.tasks),
            ("rollout.samples", self.rollout.samples),
            ("rollout.max_tokens", self.rollout.max_tokens),
            ("rollout.cache_tokens", self.rollout.cache_tokens),
            ("rollout.completions", self.rollout.completions),
            ("rollout.engines", self.rollout.engines),
            ("rollout.at_least", self.rollout.at_least),
            ("train.epochs", self.train.epochs),
            ("critic.epochs", self.critic.epochs),
            ("train.mini_batches", self.train.mini_batches),
            ("train.micro_batch_tokens", self.train.micro_batch_tokens),
            ("train.replicas", self.train.replicas),
            ("train.batch", self.train.batch),
            ("agent.max_turns", self.agent.max_turns),
            ("eval.samples", self.eval.samples),
            ("checkpoint.keep", self.checkpoint.keep),
            ("model.threads", self.model.threads),
        ] {
            if value == 0 {
                return reject(key, "must be at least 1".to_owned());
            }
        }
        let rates = [
            ("train.learning_rate", self.train.learning_rate),
            ("train.matrix_learning_rate", self.train.matrix_learning_rate),
            ("train.weight_decay", self.train.weight_decay),
            ("train.grad_clip", self.train.grad_clip),
            ("critic.learning_rate", self.critic.learning_rate),
            ("critic.clip", self.critic.clip),
            ("critic.trunk_learning_rate", self.critic.trunk_learning_rate),
            ("eval.temperature", self.eval.temperature),
        ];
        let deadlines = [
            ("rollout.call_deadline", self.rollout.call_deadline),
            ("rollout.turn_deadline", self.rollout.turn_deadline),
            ("rollout.rollout_deadline", self.rollout.rollout_deadline),
            ("rollout.step_deadline", self.rollout.step_deadline),
        ];
        for (key, value) in rates.into_iter().chain(deadlines) {
            if !(value.is_finite() && value >= 0.0) {
                return reject(key, format!("{value} must be a number that is not negative"));
            }
        }
        for (key, value) in deadlines {
            if value > MOST_SECONDS {
                return reject(key, format!("{value} seconds: at most {MOST_SECONDS}, or 0"));
            }
        }
        if !(self.rollout.temperature.is_finite() && self.rollout.temperature > 0.0) {
            return reject(
                "rollout.temperature",
                "must be positive: training needs samples".to_owned(),
            );
        }
        if !(0.0..=1.0).contains(&self.reward.flip) {
            return reject("reward.flip", "is a probability: from 0 to 1".to_owned());
        }
        for (key, value) in
            [("reward.per_call", self.reward.per_call), ("reward.per_token", self.reward.per_token)]
        {
            if !value.is_finite() {
                return reject(key, format!("{value} must be a number"));
            }
        }
        if !(self.rollout.top_p > 0.0 && self.rollout.top_p <= 1.0) {
            return reject("rollout.top_p", "must be above 0 and at most 1".to_owned());
        }
        for mode in &self.eval.modes {
            if mode != "greedy" && mode != "sampled" {
                return reject("eval.modes", format!("`{mode}`: use greedy and sampled"));
            }
        }
        let curriculum = self.data.curriculum.as_ref().map_or(Ok(()), CurriculumConfig::check);
        if let Err(KeyError { key, what }) =
            check_weights(&self.data.weights, &self.data.train).and(curriculum)
        {
            return reject(&key, what);
        }
        if self.train.init_moments && self.train.init_from.is_empty() {
            return reject("train.init_moments", "needs train.init_from".to_owned());
        }
        if self.eval.selection == TestSelection::First && !self.eval.strata.is_empty() {
            let what = "labels belong to eval.selection = \"stratified\"".to_owned();
            return reject("eval.strata", what);
        }
        if !["constant", "linear", "cosine"].contains(&self.train.schedule.as_str()) {
            return reject(
                "train.schedule",
                format!("`{}`: use constant, linear or cosine", self.train.schedule),
            );
        }
        if let Err(KeyError { key, what }) = self.check_off_policy() {
            return reject(&key, what);
        }
        // The agent is unknown here: the trainer checks again with its capabilities.
        if let Err(e) = self.algorithm.validate().and_then(|()| self.check_capabilities(true)) {
            return reject("algorithm", e.to_string());
        }
        self.check_critic().or_else(|KeyError { key, what }| reject(&key, what))
    }

    /// Whether a run satisfies the algorithm's needs; `counterfactuals`: whether the agent's
    /// episodes can be scored with a call left out.
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

fn rewritten(text: &str, keys: &[OwnKey]) -> String {
    let known: Result<Experiment, _> = toml::from_str(text);
    let resolved = known.ok().and_then(|known| known.resolved(keys).ok());
    resolved.map_or_else(|| text.to_owned(), |experiment| experiment.to_toml())
}

/// The line of `text` with a dotted key, or with the table that it is missing from.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let whole = toml::de::DeTable::parse(text).ok()?;
    let mut table = whole.get_ref();
    let mut found = None;
    for name in key.split('.') {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        found = Some(key.span().start);
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    Some(text.get(..found?)?.matches('\n').count() + 1)
}

/// A TOML error in `text` as a single line, with the line number if known.
fn sentence(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().trim_end().replace('\n', ", ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

/// Sets `a.b.c=value` in `table`; the value is parsed as TOML, or else taken as a string.
fn apply(table: &mut toml::Table, text: &str) -> Result<(), ConfigError> {
    let reject =
        |what: &str| ConfigError::Override { text: text.to_owned(), what: what.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(|| reject("write key=value"))?;
    let value = value.trim();
    let parsed: Result<toml::Table, _> = toml::from_str(&format!("value = {value}"));
    let value = match parsed {
        Ok(mut one) => one.remove("value").unwrap_or_else(|| toml::Value::String(value.to_owned())),
        Err(_) => toml::Value::String(value.to_owned()),
    };
    let keys: Vec<&str> = path.trim().split('.').collect();
    let (last, parents) = keys.split_last().ok_or_else(|| reject("write key=value"))?;
    let mut table = table;
    for parent in parents {
        table = table
            .entry((*parent).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| reject(&format!("`{parent}` is a value, not a table")))?;
    }
    table.insert((*last).to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Preset;
    use super::*;

    const SMALLEST: &str = "name = 'x'\n[model]\nsource = 'tiny'\n[agent]\nname = 'a'\n\
        [data]\ntrain = ['world']\ntest = ['world']\n[train]\nsteps = 3\n";

    /// A benchmark with a key in each possible table.
    struct Own;

    impl Schema for Own {
        fn keys(&self) -> Vec<OwnKey> {
            vec![
                OwnKey::new("agent.depth", Preset::Count(2), "how deep"),
                OwnKey::new("data.folder", Preset::Text(""), "where"),
                OwnKey::new("search.method", Preset::Text("words"), "how"),
            ]
        }

        fn check(&self, experiment: &Experiment) -> Result<(), KeyError> {
            match experiment.agent.name.as_str() {
                "a" => Ok(()),
                other => Err(KeyError::new("agent.name", format!("there is no agent `{other}`"))),
            }
        }
    }

    fn parse(text: &str, overrides: &[&str]) -> Result<Experiment, ConfigError> {
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        Experiment::parse(text, Path::new("x.toml"), &overrides, &Own)
    }

    #[test]
    fn files_of_older_versions_are_the_same_experiment() {
        let whole = parse(SMALLEST, &["rollout.samples=3"]).unwrap().to_toml();
        let older = whole.replace("engines = 1\n", "").replace("replicas = 1\n", "");
        assert_ne!(older, whole);
        let older = older.replace("depth = 2\n", "").replace("[search]\nmethod = \"words\"\n", "");
        assert_eq!(Experiment::rewritten(&older, &Own), whole);
        let read = parse(SMALLEST, &[]).unwrap();
        assert_eq!(read.rewritten_alike(&older), whole);
        assert_eq!(Experiment::rewritten("samples = 2", &Own), "samples = 2");
    }

    #[test]
    fn defaults_are_resolved_and_written_back() {
        let experiment = parse(SMALLEST, &[]).unwrap();
        assert_eq!(experiment.rollout.samples, 4);
        assert_eq!(parse(&experiment.to_toml(), &[]).unwrap(), experiment);
    }

    #[test]
    fn weights_and_a_curriculum_are_written_only_if_they_are_set() {
        let plain = parse(SMALLEST, &[]).unwrap().to_toml();
        assert!(!plain.contains("weights") && !plain.contains("curriculum"), "{plain}");
        let curriculum = "data.curriculum={label = 'steps', by = 'success', window = 8}";
        let experiment = parse(SMALLEST, &["data.weights=[2]", curriculum]).unwrap();
        let text = experiment.to_toml();
        assert!(text.contains("train = [\"world\"]\nweights = [2.0]\ntest"), "{text}");
        let table = "[data.curriculum]\nlabel = \"steps\"\nby = \"success\"\nfirst = 1\n\
                     threshold = 0.7\nwindow = 8\n";
        assert!(text.contains(table), "{text}");
        assert_eq!(parse(&text, &[]).unwrap(), experiment);
    }

    #[test]
    fn the_aggregation_follows_from_the_loss_and_the_response_length() {
        let norm = "algorithm.aggregation=seq-mean-token-sum-norm";
        for (overrides, lines) in [
            (&[][..], "[algorithm]\naggregation = \"token-mean\"\nentropy"),
            (&["algorithm.loss.name=gspo"], "\naggregation = \"seq-mean-token-mean\"\nentropy"),
            (&[norm, "rollout.max_tokens=96"], "-norm\"\naggregation_constant = 96.0\n"),
        ] {
            let experiment = parse(SMALLEST, overrides).unwrap();
            let text = experiment.to_toml();
            assert!(text.contains(lines), "{lines} is not in\n{text}");
            assert_eq!(parse(&text, &[]).unwrap(), experiment);
        }
        let error = parse(SMALLEST, &["algorithm.loss.name=gspo", norm]).unwrap_err().to_string();
        assert!(error.contains("aggregation") && error.contains("gspo"), "{error}");
    }

    #[test]
    fn keys_of_benchmarks_are_resolved_with_the_others() {
        let e = parse(SMALLEST, &["agent.depth=5", "search.method=sense"]).unwrap();
        assert_eq!(e.agent.own.get("depth").and_then(toml::Value::as_integer), Some(5));
        let text = e.to_toml();
        for part in [
            "max_turns = 4\ndepth = 5\nresult_characters = 0\n",
            "test = [\"world\"]\nfolder = \"\"\ntrain_limit = 0\ntrain_exclude = []\n",
            "seed = 0\n\n[search]\nmethod = \"sense\"\n\n[reward]\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let wrong = SMALLEST.replace("name = 'a'", "name = 'a'\ndeph = 3");
        let error = parse(&wrong, &[]).unwrap_err().to_string();
        assert!(error.starts_with("x.toml: line 6: agent.deph: unknown field `deph`"), "{error}");
        assert!(error.contains("`max_turns`") && error.contains("`depth`"), "{error}");
        let error = parse(&wrong, &["agent.depth=1"]).unwrap_err().to_string();
        assert!(error.starts_with("x.toml: line 6"), "{error}");
        assert!(Experiment::parse(SMALLEST, Path::new("x.toml"), &[], &()).is_ok());
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
    fn engines_and_replicas_are_limited_by_the_machine() {
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
    fn errors_name_the_cause() {
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
            (SMALLEST, &["rollout.call_deadline=1e300"], "at most 1000000000, or 0"),
            (SMALLEST, &["agent.depth=0"], "agent.depth: must be at least 1"),
            (SMALLEST, &["agent.name=b"], "agent.name: there is no agent `b`"),
            (SMALLEST, &["serch.method=x"], "unknown field `serch`"),
            (SMALLEST, &["reward.per_token=inf"], "reward.per_token"),
            (SMALLEST, &["rollout.samples=1"], "every advantage is 0"),
            (SMALLEST, &["train.replicas=0"], "train.replicas"),
            (SMALLEST, &["name=../x"], "folder"),
            (SMALLEST, &["model.source.x=1"], "not a table"),
            (SMALLEST, &["data.weights=[1.0, 2.0]"], "data.weights: the number of weights (2)"),
            (SMALLEST, &["data.weights=[-1.0]"], "data.weights: -1 must be"),
            (SMALLEST, &["data.curriculum={label = 'x', by = 'step'}"], "curriculum.steps: is"),
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
