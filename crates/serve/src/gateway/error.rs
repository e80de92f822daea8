//! Errors of the gateway itself, at startup and to clients.
//!
//! A client may use OpenAI's, Anthropic's or v1's protocol, and a request rejected before routing
//! has not revealed which. One body serves all: OpenAI's and Anthropic's clients read
//! `error.message`, v1's read `detail`.

use std::path::PathBuf;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::store::StoreError;

/// Why the gateway failed to start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("{0}")]
    Config(String),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
}

/// An error response.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// OpenAI's machine-readable code.
    pub(super) code: Option<&'static str>,
    pub(super) retry_after_seconds: Option<u64>,
    /// Whether the gateway is paused (sets v1's header).
    pub(super) paused: bool,
    /// Replaces the message in `detail`, as in v1 for invalid bodies.
    pub(super) detail: Option<Box<Value>>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            code: None,
            retry_after_seconds: None,
            paused: false,
            detail: None,
        }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { code: Some("not_found"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// An invalid body; `place` is the path of the field.
    pub(super) fn unprocessable(place: &[&str], message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = json!([{"loc": place, "msg": message, "type": "value_error"}]);
        let named = format!("{}: {message}", place.join("."));
        let refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, named);
        Self { detail: Some(Box::new(detail)), ..refusal }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = self.kind();
        let detail = self.detail.map_or_else(|| self.message.clone().into(), |detail| *detail);
        let body = json!({
            "type": "error",
            "error": {
                "message": self.message,
                "type": kind,
                "param": null,
                "code": self.code,
            },
            "detail": detail,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.paused {
            headers
                .insert(HeaderName::from_static("x-agl-paused"), HeaderValue::from_static("true"));
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::UnknownRollout(_) => StatusCode::NOT_FOUND,
            StoreError::Transition { .. } | StoreError::NotLeased { .. } => StatusCode::CONFLICT,
            StoreError::EventTooLarge { .. } | StoreError::RolloutTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            StoreError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::File { .. } | StoreError::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
