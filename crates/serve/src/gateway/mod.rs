//! HTTP: routes, keys, limits, and the attribution of requests to rollouts.
//!
//! [`Gateway`] is the server. A model call passes authentication, the limits, retry detection and
//! the [`UpdateGate`], and is answered by the backend of its rollout: a trainer in this process
//! ([`Rollouts`]), a registered model server, or the process's own model. Its record is durable
//! before its response is sent.

mod api;
mod auth;
mod calls;
mod config;
mod error;
mod gate;
mod held;
mod http;
mod ids;
mod metrics;
mod recorder;
mod replay;
mod reports;
mod retries;
mod rollouts;
mod routes;
mod server;
mod state;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

pub use config::{GatewayConfig, UpstreamConfig};
pub use error::GatewayError;
pub use gate::{Closed, GateState, UpdateGate};
pub use rollouts::{
    Addresses, Ended, Registered, RolloutError, RolloutEvent, RolloutSpec, Rollouts,
};

use crate::backend::Backend;
use crate::store::Store;
use state::State;

/// Interval of lease expiry checks.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Retention runs every this many intervals.
const RETENTION_INTERVALS: u32 = 60;

/// The Lightning Server's HTTP server. Clones share it.
#[derive(Clone)]
pub struct Gateway {
    state: Arc<State>,
    further: Router,
}

impl Gateway {
    /// Creates a server on `store`. `local` answers calls of no rollout and, if no model server is
    /// registered, calls of rollouts that no trainer in this process registered.
    ///
    /// Fails the rollouts of trainers of an earlier process, since those trainers are gone.
    ///
    /// # Errors
    /// If a setting is invalid or the store fails.
    pub async fn new(
        config: GatewayConfig,
        store: Store,
        local: Option<Arc<dyn Backend>>,
    ) -> Result<Self, GatewayError> {
        let state = Arc::new(State::new(config, store, local).await?);
        Ok(Self { state, further: Router::new() })
    }

    /// Also serves `routes`, with the same authentication; for example tools of a run's agents.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.further = self.further.merge(routes);
        self
    }

    /// Listens on the configured address. Rollouts can be registered afterwards.
    ///
    /// # Errors
    /// If the address is in use or not local.
    pub async fn bind(&self) -> Result<TcpListener, GatewayError> {
        let config = &self.state.config;
        let address = SocketAddr::new(config.host, config.port);
        let refused = |error| GatewayError::Listen { address: address.to_string(), error };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let local = listener.local_addr().map_err(refused)?;
        let url = config.public_url.clone().unwrap_or_else(|| format!("http://{local}"));
        self.state.rollouts.set_url(url);
        Ok(listener)
    }

    /// Serves until `shutdown` resolves; then refuses new calls with 503, lets those in flight
    /// finish until the drain deadline, and closes the store.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let state = self.state.clone();
        let maintenance = tokio::spawn(maintenance(self.state.clone()));
        let draining = move || state.gate.end();
        server::serve(listener, self.router(), &self.state.config, shutdown, draining).await;
        maintenance.abort();
        let store = self.state.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }

    /// The router alone, for tests and for other servers.
    pub fn router(&self) -> Router {
        routes::router(self.state.clone(), self.further.clone())
    }

    /// The interface by which a trainer in this process registers rollouts.
    pub fn rollouts(&self) -> Rollouts {
        self.state.rollouts.clone()
    }

    /// The gate by which a trainer blocks calls during weight updates.
    pub fn gate(&self) -> UpdateGate {
        self.state.gate.clone()
    }

    /// Requeues rollouts whose lease has expired and notifies their trainers. Called every second
    /// while the server runs.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn requeue_expired(&self) -> Result<usize, GatewayError> {
        Ok(requeue(&self.state).await?)
    }
}

async fn requeue(state: &State) -> Result<usize, crate::store::StoreError> {
    let requeued = state.store.requeue_expired().await?;
    for lost in &requeued {
        if let Some(hosted) = state.rollouts.find(&lost.rollout_id) {
            hosted.begin("", RolloutEvent::Requeued { worker: lost.worker.clone() });
        }
    }
    Ok(requeued.len())
}

/// Periodic maintenance. Store errors are ignored here: every request reports them, and the next
/// round retries.
async fn maintenance(state: Arc<State>) {
    let mut tick = tokio::time::interval(MAINTENANCE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u32.. {
        tick.tick().await;
        let _ = requeue(&state).await;
        if round.is_multiple_of(RETENTION_INTERVALS) {
            let _ = state.store.expire().await;
        }
    }
}
