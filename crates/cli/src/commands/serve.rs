//! `leyden serve`: a model behind an OpenAI URL.

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

/// Most prompt tokens in one forward pass: whoever is being answered waits for it. Between two
/// passes those that are ready take a step of decoding, which costs nearly as much for one as for
/// many: longer passes answer many prompts sooner, shorter ones the first of them.
const PREFILL_TOKENS: usize = 2048;
/// Most tokens in the cache, where memory allows for them and nothing is said.
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
    /// Address to listen on; any but a loopback address needs a key
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 is any free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Key that clients must send; the variable LEYDEN_KEY keeps it out of the list of processes
    #[arg(long)]
    key: Option<String>,
    /// Folder in which rollouts, calls and events are kept; without it they are in memory
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Number type of the forward pass: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Threads of libtorch; by default one for each core
    #[arg(long)]
    threads: Option<usize>,
    /// Context in tokens; 0 is what the model was made for
    #[arg(long, default_value_t = 0)]
    context: usize,
    /// Most tokens in the KV cache; 0 is what a quarter of the free memory holds, at most 262144
    #[arg(long, default_value_t = 0)]
    cache_tokens: usize,
    /// How the name of a control token inside a message is encoded: text, or template for the
    /// control token itself
    #[arg(long, default_value = "text", value_name = "HOW")]
    control_tokens: ControlTokens,
    /// Most requests that are answered or wait at a time
    #[arg(long, default_value_t = 1024)]
    max_requests: usize,
    /// Seconds from a request's arrival to the end of its answer
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    /// Seconds for which open requests are waited for at the end
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    // What can be refused without a model is refused before it is loaded.
    let config = arguments.gateway();
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the server's threads could not be started")?;
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
        "leyden: {} requests answered, {} tokens written, {} failed, {} given up by their clients",
        stats.finished, stats.generated_tokens, stats.failed, stats.cancelled
    );
    Ok(ExitCode::SUCCESS)
}

/// Serves until the process is told to end, and the open requests are answered.
async fn serve(
    arguments: &Arguments,
    config: GatewayConfig,
    store: Store,
    backend: &Arc<EngineBackend>,
) -> Result<()> {
    // Before the address is taken: whoever sees the line may send the signal.
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
            eprintln!("leyden: no new requests; the open ones are answered (again: end at once)");
            tokio::spawn(async move {
                interrupt.recv().await;
                // What was acknowledged is on the disk.
                std::process::exit(130);
            });
        })
        .await;
    Ok(())
}

/// A number that no other start has: whoever brings no seed wants another answer each time.
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
                let room = available_memory(device).map_or(u64::MAX, |free| free / 4 / each.max(1));
                usize::try_from(room).unwrap_or(usize::MAX).min(CACHE_TOKENS).max(context)
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

    /// What is printed once the server listens: where it is, and how to try it.
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
