//! Registered model servers (vLLM behind `POST /api/models`): server selection and forwarding.
//!
//! A non-streamed chat or completion call is forwarded with v1's changes to the body, so that
//! fields specific to the model server are passed on. Streamed calls, Responses and Messages,
//! which v1 refuses, use [`backend::UpstreamBackend`].

mod answers;
mod asks;
mod backend;
mod send;
mod tree;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

pub(super) use answers::answers;
pub(super) use backend::UpstreamBackend;
pub(super) use send::Sender;
pub(super) use tree::Tree;

use super::config::GatewayConfig;
use super::error::GatewayError;
use crate::store::ModelServer;

/// The registered servers, by model and endpoint.
pub(super) struct Upstreams {
    /// The model that rollouts call, if configured.
    model: Option<String>,
    servers: RwLock<BTreeMap<String, BTreeMap<String, ModelServer>>>,
    pub(super) sender: Arc<Sender>,
}

impl Upstreams {
    pub(super) fn new(
        config: &GatewayConfig,
        known: Vec<ModelServer>,
    ) -> Result<Self, GatewayError> {
        let sender = Arc::new(Sender::new(&config.upstream)?);
        let upstreams = Self { model: config.model.clone(), servers: RwLock::default(), sender };
        upstreams.put(known);
        Ok(upstreams)
    }

    pub(super) fn put(&self, servers: Vec<ModelServer>) {
        let mut all = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        for server in servers {
            let of_model = all.entry(server.model.clone()).or_default();
            of_model.insert(server.endpoint.clone(), server);
        }
    }

    pub(super) fn clear(&self) {
        self.servers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The names of all registered models.
    pub(super) fn models(&self) -> Vec<String> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The server for calls of `rollout`. It depends only on the set of servers, so that a
    /// rollout's earlier calls are in its cache. The formula is v1's.
    pub(super) fn of_rollout(&self, rollout: &str) -> Option<ModelServer> {
        let all = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let servers = match &self.model {
            Some(model) => all.get(model)?,
            None => all.values().next()?,
        };
        pick(servers, rollout)
    }

    /// The server for a call of no rollout, which names its model.
    pub(super) fn of_model(&self, model: &str, conversation: &str) -> Option<ModelServer> {
        let all = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        pick(all.get(model)?, conversation)
    }
}

fn pick(servers: &BTreeMap<String, ModelServer>, name: &str) -> Option<ModelServer> {
    let digest = Sha256::digest(name.as_bytes());
    let (first, _) = digest.as_slice().split_first_chunk::<8>()?;
    let count = u64::try_from(servers.len()).ok().filter(|count| *count > 0)?;
    let index = usize::try_from(u64::from_be_bytes(*first) % count).ok()?;
    servers.values().nth(index).cloned()
}
