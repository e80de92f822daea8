//! `leyden serve`: serves a model through the OpenAI API.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use leyden_inference::{EngineBackend, Model, Options};
use leyden_lm::generate::{Engine, Limits};
use leyden_lm::memory::available_memory;
use leyden_lm::model::LlamaConfig;
use leyden_serve::backend::Backend;
use leyden_serve::gateway::{Gateway, GatewayConfig};
use leyden_serve::store::{Limits as StoreLimits, Store};
use leyden_suite::model;
use leyden_text::ControlTokens;
use tch::{Device, Kind};
use tokio::signal::unix::{SignalKind, signal};

use crate::start;

/// Maximum number of prompt tokens in one prefill pass, during which decoding waits. Between two
/// passes the ready requests take one decoding step, which costs nearly as much for one as for
/// many: longer passes improve the throughput of many prompts, shorter ones the latency of the
/// first.
const PREFILL_TOKENS: usize = 2048;
/// Default capacity of the KV cache in tokens, if memory suffices.
const CACHE_TOKENS: usize = 262_144;

/// Arguments of `leyden serve`.
#[derive(clap::Args)]
pub struct Arguments {
    /// tiny, a folder, a .gguf file, or a hub id (owner/name)
    #[arg(long)]
    model: String,
    /// The model's name for clients; by default that of its file or folder
    #[arg(long)]
    name: Option<String>,
    /// Address to listen on; a key is required unless it is a loopback address
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 selects a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Key that clients must send; set LEYDEN_KEY instead to keep it out of the process list
    #[arg(long)]
    key: Option<String>,
    /// Folder of the store of rollouts, calls and events; without it they are kept in memory
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Number type of the forward pass: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Threads of libtorch; by default one per core
    #[arg(long)]
    threads: Option<usize>,
    /// Context length in tokens; 0 is the model's own
    #[arg(long, default_value_t = 0)]
    context: usize,
    /// Capacity of the KV cache in tokens; 0 is a quarter of the free memory, at most 262144 tokens
    #[arg(long, default_value_t = 0)]
    cache_tokens: usize,
    /// How the name of a control token inside a message is encoded: text, or template for the
    /// control token itself
    #[arg(long, default_value = "text", value_name = "HOW")]
    control_tokens: ControlTokens,
    /// Maximum number of running and waiting requests
    #[arg(long, default_value_t = 1024)]
    max_requests: usize,
    /// Request timeout in seconds, from arrival to the end of the response
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    /// Seconds to wait for open requests at shutdown
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    // Validate the configuration before loading the model.
    let config = arguments.gateway();
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the server's threads")?;
    let store = arguments.open_store()?;
    let threads = arguments.threads();
    start::set_threads(threads)?;
    let (loaded, _) = model::load(&arguments.model, arguments.control_tokens)?;
    let kind = leyden_lm::device::parse_kind(&arguments.dtype)?;
    let device = leyden_lm::device::parse_device(&arguments.device)?;
    let limits = arguments.limits(&loaded.config, (kind, device));
    let format = Arc::clone(&loaded.format);
    let model = Model::of(&loaded, (kind, device), limits)?;
    drop(loaded);
    let options = Options {
        threads,
        max_requests: arguments.max_requests,
        deadline: Duration::from_secs(arguments.deadline),
        seed: fresh_seed(),
        ..Options::new(arguments.name(), limits.context)
    };
    let backend = Arc::new(EngineBackend::start(model, format, options)?);
    runtime.block_on(serve(arguments, config, store, &backend))?;
    backend.shut_down(Duration::from_secs(arguments.grace));
    let stats = backend.stats();
    eprintln!(
        "leyden: {} requests answered, {} tokens generated, {} failed, {} cancelled by clients",
        stats.finished, stats.generated_tokens, stats.failed, stats.cancelled
    );
    Ok(ExitCode::SUCCESS)
}

/// Serves until SIGINT or SIGTERM, then drains the open requests.
async fn serve(
    arguments: &Arguments,
    config: GatewayConfig,
    store: Store,
    backend: &Arc<EngineBackend>,
) -> Result<()> {
    // Install handlers before printing the address: a client may send a signal once it sees it.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let key = config.key.is_some();
    let local: Arc<dyn Backend> = Arc::clone(backend) as _;
    let gateway = Gateway::new(config, store, Some(local)).await?;
    let listener = gateway.bind().await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("{}", arguments.welcome(&url, key));
    gateway
        .serve(listener, async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            eprintln!("leyden: finishing the open requests (interrupt again to stop at once)");
            tokio::spawn(async move {
                interrupt.recv().await;
                // Acknowledged data is already on disk.
                std::process::exit(130);
            });
        })
        .await;
    Ok(())
}

/// A seed that differs at every start, for requests without a seed.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Arguments {
    fn gateway(&self) -> GatewayConfig {
        let key = self.key.clone().or_else(|| std::env::var("LEYDEN_KEY").ok());
        GatewayConfig {
            host: self.host,
            port: self.port,
            key,
            request_timeout: Duration::from_secs(self.deadline),
            drain_deadline: Duration::from_secs(self.grace),
            max_calls: self.max_requests,
            ..GatewayConfig::default()
        }
    }

    fn open_store(&self) -> Result<Store> {
        Ok(match &self.store {
            Some(folder) => Store::open(folder, StoreLimits::default())?,
            None => Store::temporary(StoreLimits::default())?,
        })
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(cores).max(1)
    }

    fn limits(&self, config: &LlamaConfig, (kind, device): (Kind, Device)) -> Limits {
        let context = config.context(self.context);
        let cache_tokens = match self.cache_tokens {
            0 => {
                let each = Engine::bytes_per_token(config, kind) as u64;
                let fitting =
                    available_memory(device).map_or(u64::MAX, |free| free / 4 / each.max(1));
                usize::try_from(fitting).unwrap_or(usize::MAX).min(CACHE_TOKENS).max(context)
            }
            own => own,
        };
        Limits { context, cache_tokens, prefill_tokens: PREFILL_TOKENS }
    }

    /// The model's name for clients.
    fn name(&self) -> String {
        let own = || {
            let stem = self.model.trim_end_matches('/').trim_end_matches("/final");
            stem.rsplit('/').next().unwrap_or(stem).trim_end_matches(".gguf").to_owned()
        };
        self.name.clone().unwrap_or_else(own)
    }

    /// The message printed once the server listens: its URL and an example request.
    fn welcome(&self, url: &str, key: bool) -> String {
        let name = self.name();
        let bearer = if key { " -H \"Authorization: Bearer $LEYDEN_KEY\"" } else { "" };
        format!(
            "{name} is served at {url}/v1\n\
             try: curl {url}/v1/chat/completions{bearer} -H 'Content-Type: application/json' -d \
             '{{\"model\": \"{name}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'"
        )
    }
}
