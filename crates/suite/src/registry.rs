//! The benchmarks of a program, by name.

use anyhow::{Context, Result, bail};
use leyden_train::Experiment;
use leyden_train::config::schema::Schema;
use leyden_train::config::{KeyError, OwnKey, Values};

use crate::benchmark::{Benchmark, Dataset, GeneratedWorld};
use crate::reward::Rule;
use crate::settings::BenchmarkSettings;

/// The benchmarks of a program, in the order in which they are listed.
///
/// ```no_run
/// let registry = leyden_suite::registry();
/// assert_eq!(registry.get("calc").unwrap().name(), "calc");
/// assert!(registry.get("nobody").is_err_and(|error| error.to_string().contains("calc")));
/// ```
#[derive(Default)]
pub struct Registry {
    benchmarks: Vec<Box<dyn Benchmark>>,
}

/// The defaults of the keys that benchmarks declare.
pub(crate) struct Defaults {
    pub agent: Values,
    pub data: Values,
    pub tables: Values,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a benchmark.
    ///
    /// # Panics
    /// Its name is taken, or one of its keys is declared with another default: a bug in the
    /// program, not in its input.
    #[must_use]
    pub fn with(mut self, benchmark: impl Benchmark + 'static) -> Self {
        let name = benchmark.name();
        assert!(self.iter().all(|known| known.name() != name), "two benchmarks are named {name}");
        for key in benchmark.keys() {
            let alike = |known: &OwnKey| known.path != key.path || known.preset == key.preset;
            assert!(self.keys().iter().all(alike), "{name}: {} has another default", key.path);
        }
        self.benchmarks.push(Box::new(benchmark));
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = &(dyn Benchmark + 'static)> {
        self.benchmarks.iter().map(AsRef::as_ref)
    }

    /// The benchmark whose agent has this name.
    ///
    /// # Errors
    /// No such benchmark; the message lists the available ones.
    pub fn get(&self, name: &str) -> Result<&dyn Benchmark> {
        match self.iter().find(|benchmark| benchmark.name() == name) {
            Some(benchmark) => Ok(benchmark),
            None => bail!("agent.name: {}", self.no_agent(name)),
        }
    }

    fn no_agent(&self, name: &str) -> String {
        let names: Vec<&str> = self.iter().map(Benchmark::name).collect();
        let known = match names.as_slice() {
            [] => "there are none".to_owned(),
            [one] => format!("there is {one}"),
            [others @ .., last] => format!("there are {} and {last}", others.join(", ")),
        };
        format!("there is no agent `{name}`; {known}")
    }

    /// Prepares the benchmark named in `settings`.
    ///
    /// # Errors
    /// No such agent; invalid settings.
    pub fn prepare(&self, settings: BenchmarkSettings) -> Result<Box<dyn Dataset>> {
        self.get(&settings.agent.name)?.prepare(settings, self)
    }

    /// The generated worlds, with their benchmarks.
    pub fn worlds(&self) -> impl Iterator<Item = (GeneratedWorld, &(dyn Benchmark + 'static))> {
        let of = |benchmark: &'_ (dyn Benchmark + 'static)| benchmark.worlds();
        self.iter()
            .flat_map(move |benchmark| of(benchmark).into_iter().map(move |w| (w, benchmark)))
    }

    /// The world of this name, with its benchmark.
    pub fn world(&self, name: &str) -> Option<(GeneratedWorld, &dyn Benchmark)> {
        self.worlds().find(|(world, _)| world.name == name)
    }

    /// The benchmark whose published dataset has this name.
    ///
    /// # Errors
    /// No such benchmark; the message lists the available ones.
    pub fn published(&self, name: &str) -> Result<&dyn Benchmark> {
        let known = || self.iter().filter_map(|benchmark| Some(benchmark.published()?.name));
        let is_it = |benchmark: &&(dyn Benchmark + 'static)| {
            benchmark.published().is_some_and(|p| p.name == name)
        };
        self.iter().find(is_it).with_context(|| {
            let known: Vec<&str> = known().collect();
            format!("there is no dataset `{name}`; there are {}", known.join(", "))
        })
    }

    /// The benchmark that a file's dataset belongs to, by its field names: the first that
    /// recognises it, or else the first one.
    ///
    /// # Errors
    /// The registry is empty.
    pub fn recognise(&self, has: &dyn Fn(&str) -> bool) -> Result<&dyn Benchmark> {
        let found = self.iter().find(|benchmark| benchmark.recognises(has));
        found.or(self.iter().next()).context("this program has no benchmark")
    }

    pub(crate) fn defaults(&self) -> Defaults {
        let keys = self.keys();
        let of = |table| Values::defaults(&keys, table);
        Defaults { agent: of("agent"), data: of("data"), tables: of("") }
    }
}

impl Schema for Registry {
    fn keys(&self) -> Vec<OwnKey> {
        let mut keys: Vec<OwnKey> = Vec::new();
        for key in self.iter().flat_map(Benchmark::keys) {
            if keys.iter().all(|known| known.path != key.path) {
                keys.push(key);
            }
        }
        keys
    }

    fn choices(&self, path: &str) -> Option<String> {
        let listed = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join(", "));
        match path {
            "agent.name" => {
                listed(self.iter().map(|b| format!("{} ({})", b.name(), b.what())).collect())
            }
            "data.train" => {
                let worlds: Vec<&str> = self.worlds().map(|(world, _)| world.name).collect();
                let files: Vec<&str> =
                    self.iter().map(Benchmark::files).filter(|files| !files.is_empty()).collect();
                let mut words = Vec::new();
                if !worlds.is_empty() {
                    words.push(format!("the agent's generated world ({})", worlds.join(", ")));
                }
                if !files.is_empty() {
                    words.push(format!("files of {}", files.join(", ")));
                }
                (!words.is_empty()).then(|| words.join(", or "))
            }
            "reward.name" => {
                let described = self.iter().filter(|b| !b.reward().is_empty());
                let defaults: Vec<String> =
                    described.map(|b| format!("{}: {}", b.name(), b.reward())).collect();
                let mut words = vec![format!("default ({})", defaults.join("; "))];
                for benchmark in self.iter().filter(|b| !b.rewards().is_empty()) {
                    words.push(format!(
                        "of {} {}",
                        benchmark.name(),
                        benchmark.rewards().join(" or ")
                    ));
                }
                let rules: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
                words.push(format!("of all {}", rules.join(", ")));
                Some(words.join("; "))
            }
            _ => None,
        }
    }

    /// Validates the settings by preparing the benchmark, which reads no data.
    fn check(&self, experiment: &Experiment) -> Result<(), KeyError> {
        let prepared = self.prepare(BenchmarkSettings::of(experiment));
        // Error messages of benchmarks begin with the key.
        prepared.map(drop).map_err(|error| {
            let sentence = format!("{error:#}");
            match sentence.split_once(": ") {
                Some((key, what)) if !key.contains(' ') => KeyError::new(key, what),
                _ => KeyError::new("agent", sentence),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use leyden_train::config::Preset;
    use leyden_train::config::reference::reference;

    use super::*;

    fn experiments() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benchmarks/experiments");
        let mut files = Vec::new();
        for folder in ["mini", "external", "paper", "smollm2", "tiny"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                files.push(entry.unwrap().path());
            }
        }
        files
    }

    #[test]
    fn every_experiment_file_parses_and_round_trips() {
        let registry = crate::registry();
        let files = experiments();
        assert!(files.len() >= 11, "{files:?}");
        for path in files {
            let experiment = Experiment::read(&path, &[], &registry).unwrap();
            let text = experiment.to_toml();
            assert_eq!(Experiment::parse(&text, &path, &[], &registry).unwrap(), experiment);
        }
    }

    /// Run folders of earlier versions can be resumed only if this stays unchanged.
    #[test]
    fn the_key_order_of_a_resolved_experiment_is_stable() {
        let registry = crate::registry();
        let resolved = |name: &str| {
            let path = experiments().into_iter().find(|path| path.ends_with(name)).unwrap();
            Experiment::read(&path, &[], &registry).unwrap().to_toml()
        };
        let calc = resolved("mini/calc.toml");
        let part = "[agent]\nname = \"calc\"\nprompt = \"compact\"\nmax_turns = 3\n\
             single_operation = false\nprocess_reward = 0.0\ncheck = \"model\"\n\
             searches = 5\npassages = 4\nresult_characters = 0\non_failure = \"drop\"\n\
             retries = 1\n\n[data]\ntrain = [\"mini-calc\"]\ntest = [\"mini-calc\"]\n\
             databases = \"\"\ntrain_limit = 0\ntrain_exclude = []\nexercises = 0\ndemonstrations = \"noisy\"\n\
             successes = \"\"\nsuccess_reward = 1.0\ndemonstration_tokens = 1024\nseed = 0\n\n\
             [retrieval]\nmethod = \"bm25\"\ncorpus = \"\"\nindex = \"\"\nencoder = \"\"\n\n\
             [reward]\nname = \"default\"\nflip = 0.0\nper_call = 0.0\nper_token = 0.0\n\
             format_only = false\n\n[rollout]\n";
        assert!(calc.contains(part), "{part}\nis not in\n{calc}");
        let external = resolved("external/sql.toml");
        for part in [
            "retries = 1\n\n[agent.external]\nbenchmark = \"sql\"\ncommand = [",
            "]\nworkers = \"pool\"\nprocesses = 2\nreward = \"scorer\"\nhost = \"127.0.0.1\"\n\
             port = 0\nkey = \"\"\nenvironment = []\nmemory_megabytes = 0\ncpu_seconds = 0\n\
             lease_seconds = 30\ntruncated_as_completed = true\n\n[agent.external.roles]\n\
             check = \"Does the SQL answer\"\n",
        ] {
            assert!(external.contains(part), "{part}\nis not in\n{external}");
        }
    }

    #[test]
    fn invalid_settings_are_rejected_before_anything_runs() {
        let registry = crate::registry();
        let path = experiments().into_iter().find(|path| path.ends_with("mini/calc.toml")).unwrap();
        for (change, sentence) in [
            ("agent.name=nobody", "agent.name: there is no agent `nobody`; there are calc, sql"),
            ("agent.name=external", "agent.external: an agent named external needs this table"),
            ("agent.prompt=none", "agent.prompt: `none`: use full or compact"),
            ("agent.serches=1", "unknown field `serches`, expected one of `name`, `prompt`"),
            ("agent.passages=0", "agent.passages: must be at least 1"),
            ("retrieval.methd=x", "unknown field `methd`"),
            ("retreival.method=x", "unknown field `retreival`"),
            ("reward.name=bleu", "reward.name: the agent calc has no reward `bleu`; use default"),
        ] {
            let error = Experiment::read(&path, &[change.to_owned()], &registry).unwrap_err();
            assert!(error.to_string().contains(sentence), "{error}");
        }
    }

    #[test]
    fn the_reference_describes_the_keys_of_all_benchmarks() {
        let registry = crate::registry();
        let keys = reference(&registry);
        let what = |path: &str| &keys.iter().find(|key| key.path == path).unwrap().what;
        assert!(what("agent.name").starts_with("the agent: calc (calculator), sql (text-to-SQL)"));
        assert!(what("data.train").contains("mini-calc, mini-ledger, mini-spider, mini-musique"));
        assert!(what("reward.name").contains("of rag f1 or f1_format"));
        for key in registry.keys() {
            assert_eq!(what(key.path), key.what);
        }
    }

    /// Declares a key of another benchmark with another default.
    struct Rival;

    impl Benchmark for Rival {
        fn name(&self) -> &'static str {
            "rival"
        }

        fn what(&self) -> &'static str {
            "a rival"
        }

        fn keys(&self) -> Vec<OwnKey> {
            vec![OwnKey::new("agent.searches", Preset::Whole(9), "other")]
        }

        fn prepare(&self, _: BenchmarkSettings, _: &Registry) -> Result<Box<dyn Dataset>> {
            bail!("it is only declared")
        }
    }

    #[test]
    #[should_panic(expected = "rival: agent.searches has another default")]
    fn a_key_has_one_default() {
        let _ = crate::registry().with(Rival);
    }
}
