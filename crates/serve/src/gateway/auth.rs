//! Authentication of requests.
//!
//! With a key, every request must carry it. Without one the gateway listens on a loopback address,
//! but a foreign web page can still reach it through a browser on this machine: by a simple
//! cross-origin request, or by DNS rebinding to 127.0.0.1. So without a key, a request's Host must
//! name this machine, and its Origin must not be another one.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::config::GatewayConfig;
use super::error::Refusal;

/// The credential that a request must present.
#[derive(Debug, Clone)]
pub(super) enum Lock {
    /// A key with this digest. Digests are compared in constant time, so that response times
    /// reveal neither a common prefix nor the length of a guess.
    Key([u8; 32]),
    /// A loopback host name, or this host of the configured public URL.
    Loopback(Option<String>),
}

impl Lock {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        match &config.key {
            Some(key) => Self::Key(Sha256::digest(key.as_bytes()).into()),
            None => Self::Loopback(config.public_url.as_deref().and_then(host_of)),
        }
    }

    /// Admits a request, or returns the reason for refusal.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Key(digest) => check_key(digest, headers),
            Self::Loopback(known) => check_names(known.as_deref(), headers),
        }
    }
}

/// `Authorization: Bearer`, as OpenAI's clients send it, or `x-api-key`, as Anthropic's do.
fn check_key(digest: &[u8; 32], headers: &HeaderMap) -> Result<(), Refusal> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let plain = headers.get("x-api-key").map(|value| value.as_bytes());
    let fits = |key: &[u8]| bool::from(Sha256::digest(key).as_slice().ct_eq(digest));
    if bearer.is_some_and(fits) || plain.is_some_and(fits) {
        return Ok(());
    }
    let message = "Invalid or missing API key: send it as `Authorization: Bearer KEY` or \
                   `x-api-key: KEY`";
    Err(Refusal {
        code: Some("invalid_api_key"),
        ..Refusal::new(StatusCode::UNAUTHORIZED, message)
    })
}

fn check_names(known: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = |host: &str| is_loopback(host) || known == Some(host);
    let host = text(header::HOST).and_then(|host| host.parse::<Authority>().ok());
    let origin = text(header::ORIGIN).map(host_of);
    let host_is_ours = host.is_some_and(|host| ours(host.host()));
    let origin_is_ours = origin.is_none_or(|origin| origin.is_some_and(|host| ours(&host)));
    if host_is_ours && origin_is_ours {
        return Ok(());
    }
    let message = "without a key the server accepts local requests only: connect to 127.0.0.1 \
                   or localhost, or start the server with a key";
    Err(Refusal::new(StatusCode::FORBIDDEN, message))
}

/// The host of a URL.
fn host_of(url: &str) -> Option<String> {
    Some(url.parse::<Uri>().ok()?.host()?.to_owned())
}

/// Whether a host name or address is loopback.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(lock: &Lock, pairs: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().expect("a header"));
        }
        lock.check(&headers).is_ok()
    }

    #[test]
    fn without_a_key_only_local_requests_are_admitted() {
        let lock = Lock::new(&GatewayConfig::default());
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.8.9.1"] {
            assert!(admits(&lock, &[("host", host)]), "{host}");
        }
        for host in ["evil.example:8080", "localhost.evil.example", "10.0.0.1", "", "::1"] {
            assert!(!admits(&lock, &[("host", host)]), "{host}");
        }
        assert!(!admits(&lock, &[]));
        let from = |origin: &str| admits(&lock, &[("host", "localhost"), ("origin", origin)]);
        assert!(from("http://localhost:3000") && from("http://[::1]"));
        assert!(!from("https://evil.example") && !from("null") && !from(""));
        let public_url = Some("http://gateway.test:81".to_owned());
        let lock = Lock::new(&GatewayConfig { public_url, ..GatewayConfig::default() });
        assert!(admits(&lock, &[("host", "gateway.test:81")]));
        assert!(!admits(&lock, &[("host", "other.test")]));
    }

    #[test]
    fn with_a_key_requests_must_carry_it() {
        let key = Some("a long secret".to_owned());
        let lock = Lock::new(&GatewayConfig { key, ..GatewayConfig::default() });
        assert!(admits(&lock, &[("authorization", "Bearer a long secret"), ("host", "any")]));
        assert!(admits(&lock, &[("x-api-key", "a long secret")]));
        for wrong in ["Bearer a long secre", "Bearer ", "a long secret", "Basic a long secret"] {
            assert!(!admits(&lock, &[("authorization", wrong)]), "{wrong}");
        }
        assert!(!admits(&lock, &[]));
    }
}
