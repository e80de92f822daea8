//! One request to a model server, with v1's retries.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;

use super::super::config::UpstreamConfig;
use super::super::error::GatewayError;
use super::tree::Tree;

/// Sends requests to model servers.
pub(in crate::gateway) struct Sender {
    client: reqwest::Client,
    tries: u32,
    first_wait: Duration,
    longest_wait: Duration,
}

/// A model server's final response.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) struct Sent {
    pub(in crate::gateway) status: u16,
    /// The body; empty if its content type is not JSON.
    body: Bytes,
    /// Number of retries.
    pub(in crate::gateway) retries: u32,
}

impl Sent {
    /// The body as text and as a tree: an empty object if it is not JSON, as in v1.
    pub(in crate::gateway) fn read(&self) -> (Bytes, Tree<'_>) {
        match Tree::read(&self.body) {
            Some(tree) => (self.body.clone(), tree),
            None => (Bytes::from_static(b"{}"), Tree::Map(Vec::new())),
        }
    }
}

/// No response was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::gateway) enum NoAnswer {
    #[error("Upstream model server timed out")]
    TimedOut,
    #[error("Upstream model server request failed")]
    Failed,
}

impl NoAnswer {
    pub(in crate::gateway) fn status(self) -> StatusCode {
        match self {
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed => StatusCode::BAD_GATEWAY,
        }
    }
}

impl Sender {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, GatewayError> {
        let client = reqwest::Client::builder()
            .timeout(config.timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| GatewayError::Config(format!("upstream: {error}")))?;
        Ok(Self {
            client,
            tries: config.tries,
            first_wait: config.first_wait,
            longest_wait: config.longest_wait,
        })
    }

    /// Posts `body` to `path` below the server's root. Timeouts, broken connections and the
    /// statuses 408, 409, 429 and 5xx are retried; after the last attempt its result is returned.
    /// The agent's headers are not forwarded.
    pub(in crate::gateway) async fn send(
        &self,
        endpoint: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Sent, NoAnswer> {
        let url = format!("{}/{path}", endpoint.trim_end_matches('/'));
        let mut retries = 0;
        loop {
            let last = retries + 1 >= self.tries;
            match self.once(&url, body.clone()).await {
                Ok((status, body)) if last || !is_transient(status) => {
                    return Ok(Sent { status, body, retries });
                }
                Err(error) if last => return Err(error),
                _ => tokio::time::sleep(self.wait(retries)).await,
            }
            retries += 1;
        }
    }

    async fn once(&self, url: &str, body: Bytes) -> Result<(u16, Bytes), NoAnswer> {
        let failed = |error: reqwest::Error| {
            if error.is_timeout() { NoAnswer::TimedOut } else { NoAnswer::Failed }
        };
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
        let bytes = response.bytes().await.map_err(failed)?;
        Ok((status, if is_json { bytes } else { Bytes::new() }))
    }

    /// The backoff after `retries` retries: exponential, capped, with ±25 % jitter, so that many
    /// clients of a recovered server do not retry at the same time.
    fn wait(&self, retries: u32) -> Duration {
        let mean = self.first_wait.saturating_mul(1 << retries.min(16)).min(self.longest_wait);
        let mut byte = [0];
        // Without randomness, no jitter.
        let fraction = getrandom::fill(&mut byte).map_or(0.5, |()| f64::from(byte[0]) / 255.0);
        mean.mul_f64(0.75 + 0.5 * fraction)
    }
}

fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 409 | 429) || status >= 500
}
