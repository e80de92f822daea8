//! Reading request bodies within limits.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::Refusal;

/// Reads a body of at most `limit` bytes that arrives within `deadline`.
pub(super) async fn read(body: Body, limit: usize, deadline: Duration) -> Result<Bytes, Refusal> {
    // Reject by Content-Length before reading.
    if axum::body::HttpBody::size_hint(&body).lower() > limit as u64 {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(deadline, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => {
            Err(Refusal::bad_request(format!("the request body ended early: {error}")))
        }
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s (body_timeout)", deadline.as_secs_f64()),
        )),
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is over the limit of {limit} bytes (max_body_bytes)"),
    )
}

/// Deserialises JSON as in v1's API: an invalid body is 422.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::unprocessable(&["body"], error.to_string()))
}
