//! The Lightning Server of a run, and the processes of its agents.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use leyden_core::Task;
use leyden_serve::call::Overrides;
use leyden_serve::gateway::{Gateway, GatewayConfig, GatewayError, Rollouts};
use leyden_serve::store::{Limits, Store};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::options::{Options, Workers};
use super::pool::{self, Broken};
use super::process::{Program, Running};
use super::task::{Extras, Tool};

/// Limits of the run's store. The run folder has every rollout; the store keeps the agents'
/// requests for debugging.
const LIMITS: Limits = Limits {
    max_event_bytes: 16 << 20,
    max_rollout_bytes: 1 << 30,
    max_responses: 10_000,
    keep_last: Some(10_000),
    keep_days: None,
};

/// Timeout for shutting down the server at the end of a run.
const CLOSING: Duration = Duration::from_secs(5);

/// Errors of starting a run's server.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("agent.external.command: name the program that is the agent")]
    NoCommand,
    #[error("agent.external: {0}")]
    Server(String),
    #[error("agent.external: cannot start the server's threads: {0}")]
    Threads(std::io::Error),
}

/// The server and the processes of a run's external agents. Dropping it stops both.
pub struct Host {
    rollouts: Rollouts,
    options: Options,
    extras: Arc<dyn Extras>,
    url: String,
    key: String,
    process_slots: Semaphore,
    broken: Option<Broken>,
    /// Dropping it shuts the server down.
    _stop: oneshot::Sender<()>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Host {
    /// Opens the store, listens, and starts the pool if configured.
    ///
    /// # Errors
    /// A store or an address that cannot be used.
    pub fn start(options: Options, extras: Arc<dyn Extras>) -> Result<Self, HostError> {
        if options.workers != Workers::Remote && options.command.is_empty() {
            return Err(HostError::NoCommand);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("leyden-server")
            .enable_all()
            .build()
            .map_err(HostError::Threads)?;
        let key = options.key.clone().unwrap_or_else(random_key);
        let config = config(&options, &key)?;
        let store = Store::open(&options.store, LIMITS)
            .map_err(|error| HostError::Server(error.to_string()))?;
        let (stop, stopped) = oneshot::channel();
        let failed = |error: GatewayError| HostError::Server(error.to_string());
        let (rollouts, url) = runtime.block_on(async {
            let gateway = Gateway::new(config, store, None).await.map_err(failed)?;
            let gateway = gateway.with_routes(tools(extras.tools()));
            let listener = gateway.bind().await.map_err(failed)?;
            let address = listener.local_addr();
            let address = address.map_err(|error| HostError::Server(error.to_string()))?;
            let rollouts = gateway.rollouts();
            tokio::spawn(async move {
                let stopped = async {
                    let _ = stopped.await;
                };
                gateway.serve(listener, stopped).await;
            });
            Ok::<_, HostError>((rollouts, format!("http://{address}")))
        })?;
        let mut host = Self {
            rollouts,
            process_slots: Semaphore::new(options.processes.max(1)),
            options,
            extras,
            url,
            key,
            broken: None,
            _stop: stop,
            runtime: Some(runtime),
        };
        match host.options.workers {
            Workers::Local => {}
            Workers::Pool => host.start_pool(),
            Workers::Remote => eprintln!(
                "agents: the Lightning Server of this run listens on {}; workers claim rollouts \
                 with LEYDEN_SERVER_URL={} and AGL_KEY={}",
                host.url, host.url, host.key
            ),
        }
        Ok(host)
    }

    fn start_pool(&mut self) {
        let mut program = self.program();
        program.environment.extend([
            ("LEYDEN_SERVER_URL".to_owned(), self.url.clone()),
            ("AGL_KEY".to_owned(), self.key.clone()),
        ]);
        if let Some(runtime) = &self.runtime {
            self.broken = Some(pool::start(runtime.handle(), &program, self.options.processes));
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    pub(super) fn extras(&self, task: &Task) -> Result<Map<String, Value>, String> {
        self.extras.fields(task, &self.url)
    }

    /// Waits for a free process slot.
    pub(super) async fn process_slot(&self) -> Result<SemaphorePermit<'_>, String> {
        self.process_slots.acquire().await.map_err(|_| "the run is ending".to_owned())
    }

    /// Starts the agent's program with additional environment `variables` and the task in a file.
    pub(super) fn run(&self, variables: Vec<(String, String)>, task: String) -> Option<Running> {
        let mut program = self.program();
        program.environment.extend(variables);
        program.file = Some(("task.json", task));
        Some(Running::start(self.runtime.as_ref()?.handle(), program))
    }

    fn program(&self) -> Program {
        let inherited = ["PATH", "HOME", "LANG"].into_iter();
        let names = inherited.chain(self.options.environment.iter().map(String::as_str));
        let environment = names
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .chain([("PYTHONUNBUFFERED".to_owned(), "1".to_owned())])
            .collect();
        Program {
            command: self.options.command.clone(),
            environment,
            memory: self.options.memory,
            cpu_seconds: self.options.cpu_seconds,
            file: None,
        }
    }

    /// Resolves with the reason once no process will work on rollouts any more.
    pub(super) async fn broken(&self) -> String {
        let Some(mut broken) = self.broken.clone() else { return std::future::pending().await };
        loop {
            let why = broken.borrow_and_update().clone();
            if let Some(why) = why {
                return why;
            }
            if broken.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Running processes are killed with their tasks; the store flushes pending writes.
            runtime.shutdown_timeout(CLOSING);
        }
    }
}

fn config(options: &Options, key: &str) -> Result<GatewayConfig, HostError> {
    let host = options
        .host
        .parse()
        .map_err(|_| HostError::Server(format!("host: `{}` is not an IP address", options.host)))?;
    let defaults = GatewayConfig::default();
    // Sampling is set by the experiment, whatever a request contains.
    let rollout = Overrides {
        temperature: None,
        top_p: None,
        truncated_as_completed: options.truncated_as_completed,
        // Without a limit in the request, the experiment's limit applies, which is lower.
        default_max_tokens: Some(u32::MAX as usize),
        ..defaults.train
    };
    Ok(GatewayConfig {
        host,
        port: options.port,
        key: Some(key.to_owned()),
        train: rollout.clone(),
        val: rollout,
        ..defaults
    })
}

/// The tools as routes: `POST /api/tools/{name}`.
fn tools(tools: Vec<(&'static str, Tool)>) -> Router {
    let tools: Arc<HashMap<&'static str, Tool>> = Arc::new(tools.into_iter().collect());
    let call = move |Path(name): Path<String>, Json(body): Json<Value>| async move {
        let Some(tool) = tools.get(name.as_str()).cloned() else {
            let message = format!("there is no tool `{name}`");
            return (StatusCode::NOT_FOUND, Json(error(&message)));
        };
        // A search may be slow and must not block the server's threads.
        match tokio::task::spawn_blocking(move || tool(body)).await {
            Ok(Ok(result)) => (StatusCode::OK, Json(result)),
            Ok(Err(message)) => (StatusCode::BAD_REQUEST, Json(error(&message))),
            Err(_) => {
                let message = format!("the tool `{name}` failed");
                (StatusCode::INTERNAL_SERVER_ERROR, Json(error(&message)))
            }
        }
    };
    Router::new().route("/api/tools/{name}", post(call))
}

fn error(message: &str) -> Value {
    json!({ "error": { "message": message, "type": "invalid_request_error" } })
}

/// A random key.
fn random_key() -> String {
    leyden_serve::store::random_id()
}
