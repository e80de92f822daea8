//! HTTP: routes, keys, limits, and the attribution of requests to rollouts.
//!
//! [`Gateway`] is the server. A call of a model passes the door (key), the limits, the
//! recognition of retries and the [`UpdateGate`], and is answered by the backend of its
//! rollout: a trainer's in this process ([`Rollouts`]), a registered model server, or the
//! process's own model. Its record is durable before its answer leaves.

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
pub use rollouts::{Addresses, Ended, Happening, Registered, RolloutError, RolloutSpec, Rollouts};

use crate::backend::Backend;
use crate::store::Store;
use state::State;

/// How often leases are looked at.
const CHORES: Duration = Duration::from_secs(1);
/// How often, in rounds of that, retention is.
const EXPIRE: u32 = 60;

/// The Lightning Server's HTTP side. Clones are the same server.
#[derive(Clone)]
pub struct Gateway {
    state: Arc<State>,
    further: Router,
}

impl Gateway {
    /// A server over `store`. `local` answers calls of no rollout, and those of rollouts that
    /// no trainer of this process registered, where no model server is registered.
    ///
    /// Rollouts of trainers of an earlier process end here: their trainer is gone.
    ///
    /// # Errors
    /// A sentence about a setting that is refused, or the store's.
    pub async fn new(
        config: GatewayConfig,
        store: Store,
        local: Option<Arc<dyn Backend>>,
    ) -> Result<Self, GatewayError> {
        let state = Arc::new(State::new(config, store, local).await?);
        Ok(Self { state, further: Router::new() })
    }

    /// Serves `routes` too, behind the same key: tools of a run's agents, say.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.further = self.further.merge(routes);
        self
    }

    /// Listens on the configured address. From here on rollouts can be registered.
    ///
    /// # Errors
    /// Where the address is taken or not this machine's.
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

    /// Serves until `shutdown` ends; then refuses new calls with 503, lets those in flight
    /// finish until the drain deadline, and waits for the store.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let state = self.state.clone();
        let chores = tokio::spawn(chores(self.state.clone()));
        let draining = move || state.gate.end();
        server::serve(listener, self.router(), &self.state.config, shutdown, draining).await;
        chores.abort();
        let store = self.state.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }

    /// The routes alone, for tests and for servers of another kind.
    pub fn router(&self) -> Router {
        routes::router(self.state.clone(), self.further.clone())
    }

    /// Through which a trainer in this process has rollouts done.
    pub fn rollouts(&self) -> Rollouts {
        self.state.rollouts.clone()
    }

    /// Through which a trainer holds calls back while it updates weights.
    pub fn gate(&self) -> UpdateGate {
        self.state.gate.clone()
    }

    /// Queues the rollouts again whose worker fell silent, and tells their trainers. Called
    /// every second while the server runs.
    ///
    /// # Errors
    /// The store's.
    pub async fn requeue_expired(&self) -> Result<usize, GatewayError> {
        Ok(requeue(&self.state).await?)
    }
}

async fn requeue(state: &State) -> Result<usize, crate::store::StoreError> {
    let requeued = state.store.requeue_expired().await?;
    for lost in &requeued {
        if let Some(hosted) = state.rollouts.find(&lost.rollout_id) {
            hosted.begin("", Happening::Requeued { worker: lost.worker.clone() });
        }
    }
    Ok(requeued.len())
}

/// What is done beside requests. An error of the store shows in every request; here the next
/// round tries again.
async fn chores(state: Arc<State>) {
    let mut tick = tokio::time::interval(CHORES);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u32.. {
        tick.tick().await;
        let _ = requeue(&state).await;
        if round.is_multiple_of(EXPIRE) {
            let _ = state.store.expire().await;
        }
    }
}
