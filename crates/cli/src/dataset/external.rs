//! An agent outside of this process on the tasks of a benchmark.
//!
//! Tasks, scorer, corpus and databases are the benchmark's own; only the agent is another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_suite::external::{ExternalAgent, Host, Options, RewardFrom, Workers};
use leyden_train::config::{self, ExternalConfig};

use super::{Cast, Dataset, Rows, Settings, Train, World};

/// A benchmark, and how the agent that works on it is run.
pub struct External {
    benchmark: Box<dyn Dataset>,
    external: ExternalConfig,
    run: Option<PathBuf>,
}

impl External {
    pub fn new(mut settings: Settings) -> Result<Self> {
        let external = settings.agent.external.take().context(
            "agent.external: an agent named external needs this table, with its benchmark and \
             its command",
        )?;
        let needs_command = external.workers != config::Workers::Remote;
        match external.command.first().map(String::as_str) {
            None | Some("") if needs_command => bail!(
                "agent.external.command: name the program that is the agent, as in \
                 [\"python\", \"my_agent.py\"]"
            ),
            Some(_) if !needs_command => bail!(
                "agent.external.command: with workers = \"remote\" you start the workers \
                 yourself; leave the command away, or use workers = \"pool\""
            ),
            _ => {}
        }
        if external.benchmark == "external" {
            bail!("agent.external.benchmark: use calc, sql or rag");
        }
        let run = settings.run.clone();
        settings.agent.name.clone_from(&external.benchmark);
        let benchmark = super::of(settings).context("agent.external.benchmark")?;
        Ok(Self { benchmark, external, run })
    }

    fn options(&self, roles: &[&str]) -> Result<Options> {
        let external = &self.external;
        let store = match &self.run {
            Some(run) => run.join("server"),
            None => bail!("agent.name: external agents work in runs only (leyden run)"),
        };
        let unknown = external.roles.keys().find(|role| !roles.contains(&role.as_str()));
        if let Some(role) = unknown.filter(|_| !roles.is_empty()) {
            bail!(
                "agent.external.roles: the benchmark {} has no role `{role}`; it has {}",
                external.benchmark,
                roles.join(", ")
            );
        }
        Ok(Options {
            workers: match external.workers {
                config::Workers::Local => Workers::Local,
                config::Workers::Pool => Workers::Pool,
                config::Workers::Remote => Workers::Remote,
            },
            command: external.command.clone(),
            processes: external.processes,
            reward: match external.reward {
                config::RewardFrom::Scorer => RewardFrom::Scorer,
                config::RewardFrom::Agent => RewardFrom::Agent,
            },
            default_role: roles.first().map_or_else(String::new, |role| (*role).to_owned()),
            roles: external.roles.clone(),
            environment: external.environment.clone(),
            memory: external.memory_megabytes << 20,
            cpu_seconds: external.cpu_seconds,
            lease: std::time::Duration::from_secs(external.lease_seconds.max(1)),
            truncated_as_completed: external.truncated_as_completed,
            host: external.host.clone(),
            port: external.port,
            key: (!external.key.is_empty()).then(|| external.key.clone()),
            store,
            model: "leyden".to_owned(),
        })
    }
}

impl Dataset for External {
    fn world_name(&self) -> &'static str {
        self.benchmark.world_name()
    }

    fn world(&self) -> Arc<dyn World> {
        self.benchmark.world()
    }

    fn read(&self, path: &Path) -> Result<Rows> {
        self.benchmark.read(path)
    }

    fn cast(&self, train: Train<'_>, test: &[Task], demonstrated: bool) -> Result<Cast> {
        if demonstrated {
            bail!("train.objective: an external agent is trained by reinforcement only");
        }
        let cast = self.benchmark.cast(train, test, false)?;
        // A handful of short names, once for each run: they may as well stay for ever.
        let roles: Vec<&'static str> = match self.external.roles.is_empty() {
            true => cast.agent.roles().iter().map(|role| keep(role)).collect(),
            false => self.external.roles.keys().map(|role| keep(role)).collect(),
        };
        let options = self.options(cast.agent.roles())?;
        let host = Host::start(options, Arc::clone(&cast.extras))?;
        Ok(Cast { agent: Arc::new(ExternalAgent::new(Arc::new(host), roles)), ..cast })
    }
}

fn keep(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}
