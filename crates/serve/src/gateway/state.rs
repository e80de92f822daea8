//! State shared by all requests.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::auth::Lock;
use super::config::GatewayConfig;
use super::error::GatewayError;
use super::gate::UpdateGate;
use super::metrics::Metrics;
use super::retries::Retries;
use super::rollouts::Rollouts;
use super::upstream::Upstreams;
use crate::backend::Backend;
use crate::store::Store;

pub(super) struct State {
    pub(super) config: GatewayConfig,
    pub(super) store: Store,
    pub(super) lock: Lock,
    pub(super) rollouts: Rollouts,
    pub(super) gate: UpdateGate,
    /// The model of this process, if any.
    pub(super) local: Option<Arc<dyn Backend>>,
    pub(super) upstreams: Upstreams,
    pub(super) metrics: Metrics,
    pub(super) retries: Arc<Retries>,
    /// Permits for concurrent model calls.
    pub(super) call_permits: Arc<Semaphore>,
}

impl State {
    pub(super) async fn new(
        config: GatewayConfig,
        store: Store,
        local: Option<Arc<dyn Backend>>,
    ) -> Result<Self, GatewayError> {
        config.check()?;
        store.fail_orphans().await?;
        store.requeue_expired().await?;
        store.expire().await?;
        let upstreams = Upstreams::new(&config, store.models().await?)?;
        let metrics = Metrics::new().map_err(|error| GatewayError::Config(error.to_string()))?;
        Ok(Self {
            lock: Lock::new(&config),
            rollouts: Rollouts::new(store.clone(), config.key.clone()),
            gate: UpdateGate::default(),
            retries: Arc::new(Retries::new(&store)),
            call_permits: Arc::new(Semaphore::new(config.max_calls)),
            local,
            upstreams,
            metrics,
            store,
            config,
        })
    }
}
