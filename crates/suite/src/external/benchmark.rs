//! Runs an agent outside of this process on the tasks of a benchmark.
//!
//! Tasks, scorer, corpus and databases are those of the benchmark; only the agent is replaced.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_train::config::{OwnKey, Preset};

use super::{ExternalAgent, Host, Options, RewardFrom, Workers};
use crate::benchmark::{Assembled, Benchmark, Dataset, LoadedTasks, Train, World};
use crate::describe::Description;
use crate::registry::Registry;
use crate::settings::BenchmarkSettings;

/// The benchmark of an agent that runs outside of this process.
pub struct External;

const BENCHMARK: &str = "agent.external.benchmark";
const COMMAND: &str = "agent.external.command";
const WORKERS: &str = "agent.external.workers";
const PROCESSES: &str = "agent.external.processes";
const REWARD: &str = "agent.external.reward";
const HOST: &str = "agent.external.host";
const PORT: &str = "agent.external.port";
const KEY: &str = "agent.external.key";
const ROLES: &str = "agent.external.roles";
const ENVIRONMENT: &str = "agent.external.environment";
const MEMORY: &str = "agent.external.memory_megabytes";
const CPU_SECONDS: &str = "agent.external.cpu_seconds";
const LEASE: &str = "agent.external.lease_seconds";
const TRUNCATED: &str = "agent.external.truncated_as_completed";

impl Benchmark for External {
    fn name(&self) -> &'static str {
        "external"
    }

    fn what(&self) -> &'static str {
        "a program in any language; see agent.external"
    }

    fn keys(&self) -> Vec<OwnKey> {
        let key = OwnKey::new;
        vec![
            key(BENCHMARK, Preset::Required, "the benchmark whose tasks and scorer are used"),
            key(COMMAND, Preset::Texts, "program and arguments of a local agent"),
            key(
                WORKERS,
                Preset::Text("local"),
                "local (a process for each rollout), pool (processes that claim rollouts one \
                after another) or remote (workers started elsewhere that claim rollouts over \
                HTTP)",
            ),
            key(
                PROCESSES,
                Preset::Count(4),
                "maximum number of concurrent processes of local agents, or of the pool",
            ),
            key(
                REWARD,
                Preset::Text("scorer"),
                "scorer (the benchmark's scorer) or agent (sent by the agent as an event)",
            ),
            key(HOST, Preset::Text("127.0.0.1"), "address of the run's Lightning Server"),
            key(PORT, Preset::Whole(0), "its port; 0 selects a free one"),
            key(KEY, Preset::Text(""), "key that agents must send; random if empty"),
            key(
                ROLES,
                Preset::Table,
                "table from each role to a text contained in its system prompt",
            ),
            key(
                ENVIRONMENT,
                Preset::Texts,
                "environment variables that local agents inherit, besides PATH, HOME and LANG",
            ),
            key(MEMORY, Preset::Whole(0), "address space of a local agent; 0 is unlimited"),
            key(CPU_SECONDS, Preset::Whole(0), "CPU time of a local agent; 0 is unlimited"),
            key(
                LEASE,
                Preset::Whole(30),
                "seconds after which the rollouts of a remote worker without heartbeat are \
                requeued",
            ),
            key(
                TRUNCATED,
                Preset::Flag(true),
                "whether the Responses API reports a truncated answer as completed; the OpenAI \
                 Agents SDK ends its agent otherwise",
            ),
        ]
    }

    fn prepare(
        &self,
        settings: BenchmarkSettings,
        registry: &Registry,
    ) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(Prepared::new(settings, registry)?))
    }
}

/// The inner benchmark, and the settings of the external agent.
struct Prepared {
    benchmark: Box<dyn Dataset>,
    settings: BenchmarkSettings,
    /// The benchmark's name.
    name: String,
    workers: Workers,
    reward: RewardFrom,
    port: u16,
}

impl Prepared {
    fn new(settings: BenchmarkSettings, registry: &Registry) -> Result<Self> {
        if !settings.agent.own.has_table("external") {
            bail!(
                "agent.external: an agent named external needs this table, with its benchmark \
                 and its command"
            );
        }
        let workers = match settings.text(WORKERS)? {
            "local" => Workers::Local,
            "pool" => Workers::Pool,
            "remote" => Workers::Remote,
            other => bail!("{WORKERS}: `{other}`: use local, pool or remote"),
        };
        let reward = match settings.text(REWARD)? {
            "scorer" => RewardFrom::Scorer,
            "agent" => RewardFrom::Agent,
            other => bail!("{REWARD}: `{other}`: use scorer or agent"),
        };
        let command = settings.texts(COMMAND)?;
        match command.first().map(String::as_str) {
            None | Some("") if workers != Workers::Remote => bail!(
                "{COMMAND}: name the program that is the agent, as in \
                 [\"python\", \"my_agent.py\"]"
            ),
            Some(_) if workers == Workers::Remote => bail!(
                "{COMMAND}: workers = \"remote\" are started elsewhere; omit the \
                 command, or use workers = \"pool\""
            ),
            _ => {}
        }
        let port = settings.number(PORT)?;
        let port = port.try_into().ok().with_context(|| format!("{PORT}: {port} is not a port"))?;
        let name = settings.text(BENCHMARK)?.to_owned();
        if name == "external" {
            let others = registry.iter().map(Benchmark::name).filter(|name| *name != "external");
            bail!("{BENCHMARK}: use one of {}", others.collect::<Vec<_>>().join(", "));
        }
        let mut inner = settings.clone();
        inner.agent.name.clone_from(&name);
        let benchmark = registry.prepare(inner).context(BENCHMARK)?;
        Ok(Self { benchmark, settings, name, workers, reward, port })
    }

    fn options(&self, roles: &[&str]) -> Result<Options> {
        let settings = &self.settings;
        let store = match &settings.run {
            Some(run) => run.join("server"),
            None => bail!("agent.name: external agents are supported only in runs (leyden run)"),
        };
        let own = settings.table(ROLES)?;
        let unknown = own.keys().find(|role| !roles.contains(&role.as_str()));
        if let Some(role) = unknown.filter(|_| !roles.is_empty()) {
            bail!(
                "{ROLES}: the benchmark {} has no role `{role}`; it has {}",
                self.name,
                roles.join(", ")
            );
        }
        let key = settings.text(KEY)?;
        Ok(Options {
            workers: self.workers,
            command: settings.texts(COMMAND)?,
            processes: settings.count(PROCESSES)?,
            reward: self.reward,
            default_role: roles.first().map_or_else(String::new, |role| (*role).to_owned()),
            roles: own,
            environment: settings.texts(ENVIRONMENT)?,
            memory: settings.number(MEMORY)? << 20,
            cpu_seconds: settings.number(CPU_SECONDS)?,
            lease: std::time::Duration::from_secs(settings.number(LEASE)?.max(1)),
            truncated_as_completed: settings.flag(TRUNCATED)?,
            host: settings.text(HOST)?.to_owned(),
            port: self.port,
            key: (!key.is_empty()).then(|| key.to_owned()),
            store,
            model: "leyden".to_owned(),
        })
    }
}

impl Dataset for Prepared {
    fn world(&self, name: &str) -> Option<Arc<dyn World>> {
        self.benchmark.world(name)
    }

    fn read(&self, path: &Path) -> Result<LoadedTasks> {
        self.benchmark.read(path)
    }

    fn assemble(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Assembled> {
        if demonstrated {
            bail!("train.objective: external agents support only the reinforcement objective");
        }
        let assembled = self.benchmark.assemble(train, test, false)?;
        let options = self.options(assembled.agent.roles())?;
        // A few short names are leaked once per run.
        let roles: Vec<&'static str> = match options.roles.is_empty() {
            true => assembled.agent.roles().iter().map(|role| leak(role)).collect(),
            false => options.roles.keys().map(|role| leak(role)).collect(),
        };
        let host = Host::start(options, Arc::clone(&assembled.extras))?;
        Ok(Assembled { agent: Arc::new(ExternalAgent::new(Arc::new(host), roles)), ..assembled })
    }

    fn describe(&self, name: &str, tasks: &[Task]) -> Result<Description> {
        self.benchmark.describe(name, tasks)
    }
}

fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}
