//! Who may enter.

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::Refusal;

/// The digest of the key, if one is needed.
///
/// Digests are compared, in constant time, so that neither a common beginning nor the length
/// of a guess shows in the time of the answer.
#[derive(Debug, Clone)]
pub(super) struct Lock(Option<[u8; 32]>);

impl Lock {
    pub(super) fn new(key: Option<&str>) -> Self {
        Self(key.map(|key| Sha256::digest(key.as_bytes()).into()))
    }

    /// Lets a request in that carries the key, as `Authorization: Bearer` (OpenAI's clients)
    /// or `x-api-key` (Anthropic's).
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(expected) = &self.0 else { return Ok(()) };
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let plain = headers.get("x-api-key").map(|value| value.as_bytes());
        let fits = |key: &[u8]| bool::from(Sha256::digest(key).as_slice().ct_eq(expected));
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
}
