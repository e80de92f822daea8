//! Gateway settings and their validation.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::GatewayError;
use crate::call::Overrides;

/// The gateway's address, authentication and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayConfig {
    pub host: IpAddr,
    /// 0 lets the operating system choose one.
    pub port: u16,
    /// The API key that every request must carry; `None` is allowed on a loopback address only.
    pub key: Option<String>,
    /// The URL by which agents reach the gateway, without a trailing slash; `None` uses the
    /// listening address.
    pub public_url: Option<String>,
    /// The model for rollouts' calls when model servers are registered; `None` is the first
    /// registered one.
    pub model: Option<String>,
    /// Overrides for calls in mode `train`, in mode `val`, and for calls of no rollout.
    pub train: Overrides,
    pub val: Overrides,
    pub open: Overrides,
    /// Maximum size of a request body.
    pub max_body_bytes: usize,
    /// Maximum size of request line and headers together; at least 8192.
    pub max_header_bytes: usize,
    /// Timeout for an idle connection and for receiving headers.
    pub header_timeout: Duration,
    /// Timeout for receiving a body.
    pub body_timeout: Duration,
    /// Timeout until a call's response begins, excluding waits for weight updates.
    pub request_timeout: Duration,
    /// Maximum concurrent model calls, including waiting ones; further calls get 503.
    pub max_calls: usize,
    /// Maximum open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a call waits for a weight update before it gets 429.
    pub pause_deadline: Duration,
    /// How long shutdown waits for requests in flight.
    pub drain_deadline: Duration,
    /// Timeouts and retries for registered model servers.
    pub upstream: UpstreamConfig,
}

/// Timeouts and retries for registered model servers; defaults as in v1.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamConfig {
    /// Timeout of one attempt.
    pub timeout: Duration,
    /// Maximum number of attempts.
    pub tries: u32,
    /// Mean backoff before the second attempt; doubles with each further one.
    pub first_wait: Duration,
    /// Maximum mean backoff.
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
            // v1 leaves `top_p` to the body, and the model server falls back to the model's own
            // file: the log-probabilities are then not those of the sampled distribution.
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
    /// Validates the settings before the gateway listens.
    ///
    /// # Errors
    /// An error naming the invalid setting.
    pub fn check(&self) -> Result<(), GatewayError> {
        let refuse = |what: String| Err(GatewayError::Config(what));
        if self.key.as_deref().is_some_and(|key| key.len() < 8 || !key.is_ascii()) {
            return refuse("key: at least 8 characters, all of them ASCII".into());
        }
        if self.key.is_none() && !self.host.is_loopback() {
            return refuse(format!(
                "host {}: this address is reachable from other machines, and without a key \
                 anyone could use the model and read every rollout; set a key, or listen on 127.0.0.1",
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
