//! Errors in the formats of OpenAI and Anthropic.
//!
//! A client uses the status to choose its exception and whether to retry, and shows the message;
//! LangChain searches the message of a 400 for "prompt is too long".

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::backend::Failure;
use crate::call::Endpoint;

/// Maximum `Retry-After`, in seconds: `openai` ignores a longer one.
const LONGEST_RETRY: u64 = 120;

/// The error body format that a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}}`
    Anthropic,
}

impl Shape {
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Messages => Self::Anthropic,
            Endpoint::Chat | Endpoint::Completions | Endpoint::Responses => Self::OpenAi,
        }
    }
}

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub status: u16,
    /// One sentence that names the field and how to fix it.
    pub message: String,
    /// The invalid field, for example `messages[2].content`.
    pub param: Option<String>,
    /// OpenAI's machine-readable reason.
    pub code: Option<&'static str>,
    /// Sent as `Retry-After`.
    pub retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code, retry_after_seconds: None }
    }

    /// 400: the request is invalid or unsupported.
    pub fn invalid(param: Option<String>, message: impl Into<String>) -> Self {
        Self { param, ..Self::new(400, None, message) }
    }

    /// 401: no key, or the wrong one.
    pub fn unauthorized() -> Self {
        let message = "the key is missing or wrong: send it as `Authorization: Bearer KEY` or \
                       as `x-api-key: KEY`";
        Self::new(401, Some("invalid_api_key"), message)
    }

    /// 404: no endpoint under this path.
    pub fn unknown_path(path: &str) -> Self {
        Self::new(404, Some("unknown_url"), format!("there is no endpoint {path}"))
    }

    /// 404: no such model.
    pub fn unknown_model(id: &str) -> Self {
        let message =
            format!("the model {id:?} does not exist; GET /v1/models lists those that do");
        let param = Some("model".to_owned());
        Self { param, ..Self::new(404, Some("model_not_found"), message) }
    }

    /// 413: the body exceeds the server's limit.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body exceeds the server's limit of {limit} bytes");
        Self::new(413, Some("request_too_large"), message)
    }

    /// 429: retry after this many seconds.
    pub fn busy(retry_after_seconds: u64, message: impl Into<String>) -> Self {
        let retry_after_seconds = Some(retry_after_seconds.clamp(1, LONGEST_RETRY));
        Self { retry_after_seconds, ..Self::new(429, Some("rate_limit_exceeded"), message) }
    }

    /// OpenAI's error type, derived from the status.
    fn openai_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            504 => "timeout_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// Anthropic's error type.
    fn anthropic_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON body.
    pub fn body(&self, shape: Shape) -> Value {
        match shape {
            Shape::OpenAi => json!({"error": {
                "message": self.message,
                "type": self.openai_type(),
                "param": self.param,
                "code": self.code,
            }}),
            Shape::Anthropic => json!({
                "type": "error",
                "error": {"type": self.anthropic_type(), "message": self.message},
            }),
        }
    }

    /// The whole response.
    pub fn respond(&self, shape: Shape) -> Response {
        let mut response = Response::new(Body::from(self.body(shape).to_string()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::ContextLength { .. } => {
                Self::new(400, Some("context_length_exceeded"), message)
            }
            Failure::Invalid { param, .. } => Self::invalid(param, message),
            Failure::Gone(_) => Self::new(404, Some("rollout_gone"), message),
            Failure::Busy { retry_after_seconds, .. } => Self::busy(retry_after_seconds, message),
            Failure::Late(_) => Self::new(504, Some("timeout"), message),
            Failure::ShuttingDown => {
                Self { retry_after_seconds: Some(1), ..Self::new(503, None, message) }
            }
            Failure::Internal(_) => Self::new(500, None, message),
        }
    }
}

/// A rejected request, as recorded.
impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        Self::Invalid { param: error.param.clone(), message: error.message.clone() }
    }
}
