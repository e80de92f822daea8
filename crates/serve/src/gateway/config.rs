//! What may be set of the gateway, and what is refused before it listens.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::GatewayError;
use crate::call::Overrides;

/// Where the gateway listens, whom it lets in, and how much it takes on.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayConfig {
    pub host: IpAddr,
    /// 0 lets the system choose one.
    pub port: u16,
    /// What every request must carry; `None` is allowed on a loopback address only.
    pub key: Option<String>,
    /// The URL under which agents reach the gateway, without a slash at its end; `None` is the
    /// address that it listens on.
    pub public_url: Option<String>,
    /// The model that calls of rollouts go to where model servers are registered; `None` is the
    /// first registered one.
    pub model: Option<String>,
    /// What holds for calls in mode `train`, in mode `val`, and for calls of no rollout.
    pub train: Overrides,
    pub val: Overrides,
    pub open: Overrides,
    /// Longest body of a request.
    pub max_body_bytes: usize,
    /// Longest request line and headers together; at least 8192.
    pub max_header_bytes: usize,
    /// How long a connection may stay silent before a request, or be in the middle of headers.
    pub header_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a call may take until its answer begins, waiting for updates not counted.
    pub request_timeout: Duration,
    /// Most model calls at a time, those that wait included; further ones get 503.
    pub max_calls: usize,
    /// Most open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a call waits while weights are updated before it gets 429.
    pub pause_deadline: Duration,
    /// How long a shutdown waits for requests in flight.
    pub drain_deadline: Duration,
    /// How calls reach registered model servers.
    pub upstream: UpstreamConfig,
}

/// How calls reach registered model servers: v1's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries before the last failure is the answer.
    pub tries: u32,
    /// Mean wait before the second try; it doubles with every further one.
    pub first_wait: Duration,
    /// Longest mean wait.
    pub longest_wait: Duration,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            tries: 6,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(8),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        let rollout = Overrides {
            temperature: Some(1.0),
            // v1 leaves it to the body, and a model server to the model's own file: then the
            // log-probabilities are not those of the distribution that was sampled.
            top_p: Some(1.0),
            token_ids: true,
            logprobs: true,
            any_model: true,
            truncated_as_completed: true,
            ..Overrides::default()
        };
        let val = Overrides { temperature: Some(0.7), top_p: None, logprobs: false, ..rollout };
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 8080,
            key: None,
            public_url: None,
            model: None,
            train: rollout,
            val,
            open: Overrides::default(),
            max_body_bytes: 16 << 20,
            max_header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(600),
            max_calls: 4096,
            max_connections: 8192,
            pause_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            upstream: UpstreamConfig::default(),
        }
    }
}

impl GatewayConfig {
    /// Checks what can be checked before listening.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self) -> Result<(), GatewayError> {
        let refuse = |what: String| Err(GatewayError::Config(what));
        if self.key.as_deref().is_some_and(|key| key.len() < 8 || !key.is_ascii()) {
            return refuse("key: at least 8 characters, all of them ASCII".into());
        }
        if self.key.is_none() && !self.host.is_loopback() {
            return refuse(format!(
                "host {}: others can reach this address, and without a key anyone of them could \
                 use the model and read every rollout; set a key, or listen on 127.0.0.1",
                self.host
            ));
        }
        if self.max_header_bytes < 8192 {
            return refuse("max_header_bytes: at least 8192".into());
        }
        if self.max_calls == 0 || self.max_connections == 0 || self.upstream.tries == 0 {
            return refuse("max_calls, max_connections and upstream.tries: at least 1".into());
        }
        Ok(())
    }
}
