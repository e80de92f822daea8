//! A call of a model endpoint, as the gateway passes it to a protocol.
//!
//! The gateway supplies the caller's identity and the server's limits; the protocol interprets the
//! body. [`crate::protocol::handle`] combines both and returns a response, streamed or whole. The
//! call is passed to the [`Recorder`] before the last byte is sent, so an agent never holds a
//! response that the store does not have.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::backend::{Answer, Backend, Failure};

/// The wire format of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// OpenAI's `/v1/chat/completions`.
    Chat,
    /// OpenAI's `/v1/completions`.
    Completions,
    /// OpenAI's `/v1/responses`.
    Responses,
    /// Anthropic's `/v1/messages`.
    Messages,
}

impl Endpoint {
    /// The path below the API's root, used in events and metrics.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }
}

/// Settings that override the request's body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Replaces the body's temperature (training: 1.0; validation: the run's setting).
    pub temperature: Option<f64>,
    /// Replaces the body's `top_p` and disables its `top_k`, because both truncate the
    /// distribution.
    pub top_p: Option<f64>,
    /// Always include token ids in the response.
    pub token_ids: bool,
    /// Always include log-probabilities in the response.
    pub logprobs: bool,
    /// Ignore the body's `model`: the run determines it.
    pub any_model: bool,
    /// Report a truncated `/v1/responses` response as completed (the OpenAI Agents SDK aborts its
    /// agent on `incomplete`); the record keeps the true reason.
    pub truncated_as_completed: bool,
    /// Token limit if the body has none; `None` means the rest of the context (for
    /// `/v1/completions` 16 tokens, as at OpenAI).
    pub default_max_tokens: Option<usize>,
}

/// Everything about a call that is not in its body.
#[derive(Clone)]
pub struct CallContext {
    pub backend: Arc<dyn Backend>,
    pub recorder: Arc<dyn Recorder>,
    pub memory: Arc<dyn ResponseMemory>,
    pub overrides: Overrides,
    /// `rollout/attempt`, if the URL names them.
    pub conversation: Option<String>,
    /// The agent's role, if a header names it.
    pub role: Option<String>,
}

/// A serialised JSON body and the fields that are read from it. A body with log-probabilities has
/// thousands of values, so it is serialised once for both the client and the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub text: String,
    /// The body's `usage`, or null.
    pub usage: Value,
    /// The `finish_reason` of the first of the body's `choices`.
    pub finish_reason: Option<String>,
}

impl Written {
    /// The body, parsed.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl From<Value> for Written {
    fn from(body: Value) -> Self {
        Self {
            text: body.to_string(),
            usage: body["usage"].clone(),
            finish_reason: body["choices"][0]["finish_reason"].as_str().map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The record of one call. With `n > 1` it has several answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRecord {
    pub endpoint: Endpoint,
    /// The request body as received.
    pub request: Value,
    /// The complete response body, also of a streamed response; the error body if the call failed.
    pub response: Written,
    pub answers: Vec<Answer>,
    pub status: u16,
    pub seconds: f64,
    pub role: Option<String>,
    /// Why the call failed, if it did.
    pub failure: Option<Failure>,
}

/// Stores call records.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Returns once the record is durable.
    ///
    /// # Errors
    /// If the record could not be stored; the call then fails with this error.
    async fn record(&self, record: CallRecord) -> Result<(), Failure>;
}

/// Conversations by response id, for `previous_response_id`.
#[async_trait]
pub trait ResponseMemory: Send + Sync {
    /// Stores all items of a conversation, input and output, under the id of its last response.
    async fn keep(&self, id: &str, items: Vec<Value>);

    /// `None` if the id is unknown or was evicted.
    async fn recall(&self, id: &str) -> Option<Vec<Value>>;
}
