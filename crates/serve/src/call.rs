//! One call of a model endpoint, as the gateway hands it to a protocol.
//!
//! The gateway knows whose call it is and what the server allows; the protocol knows the body.
//! [`crate::protocol::handle`] brings both together and answers with a response, streamed or
//! whole. What was seen and written is given to the [`Recorder`] before the last byte leaves,
//! so that an agent never holds an answer that the store does not have.

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
    /// The path below the API's root, as events and metrics name it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }
}

/// What holds for a call whatever its body says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Instead of the body's temperature (training: 1.0; validation: what the run says).
    pub temperature: Option<f64>,
    /// Instead of the body's `top_p`; its `top_k` is then off, for both cut the distribution.
    pub top_p: Option<f64>,
    /// Token ids are part of the response whether or not the body asks.
    pub token_ids: bool,
    /// Log-probabilities are part of the response whether or not the body asks.
    pub logprobs: bool,
    /// The body's `model` is not looked at: the run has one.
    pub any_model: bool,
    /// A truncated answer of `/v1/responses` is reported as completed (the OpenAI Agents SDK
    /// ends its agent on `incomplete`); the record keeps the true reason.
    pub truncated_as_completed: bool,
    /// Most tokens where the body names no limit; `None` is the rest of the context (of
    /// `/v1/completions` 16 tokens, as OpenAI has it).
    pub default_max_tokens: Option<usize>,
}

/// Everything about a call that is not in its body.
#[derive(Clone)]
pub struct CallContext {
    pub backend: Arc<dyn Backend>,
    pub recorder: Arc<dyn Recorder>,
    pub memory: Arc<dyn ResponseMemory>,
    pub overrides: Overrides,
    /// `rollout/attempt`, where the URL names them.
    pub conversation: Option<String>,
    /// The agent's role, where a header names it.
    pub role: Option<String>,
}

/// A JSON body in writing, and what is looked up in it: a body with log-probabilities has
/// thousands of values, and is written once for both the client and the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub text: String,
    /// The body's `usage`, or null.
    pub usage: Value,
    /// The `finish_reason` of the first of the body's `choices`.
    pub finish_reason: Option<String>,
}

impl Written {
    /// The body, read again.
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

/// What happened in one call. With `n > 1` it has several answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRecord {
    pub endpoint: Endpoint,
    /// The body as it came.
    pub request: Value,
    /// The body that was answered, also where it was streamed; an error's body where it failed.
    pub response: Written,
    pub answers: Vec<Answer>,
    pub status: u16,
    pub seconds: f64,
    pub role: Option<String>,
    /// Why there is no answer.
    pub failure: Option<Failure>,
}

/// Keeps what happened in calls.
#[async_trait]
pub trait Recorder: Send + Sync {
    /// Returns once the record is durable.
    ///
    /// # Errors
    /// Where it could not be kept; the call then fails with it.
    async fn record(&self, record: CallRecord) -> Result<(), Failure>;
}

/// Conversations by response id, for `previous_response_id`.
#[async_trait]
pub trait ResponseMemory: Send + Sync {
    /// Keeps all items of a conversation, input and output, under the id of its last response.
    async fn keep(&self, id: &str, items: Vec<Value>);

    /// `None` where the id is unknown or was evicted.
    async fn recall(&self, id: &str) -> Option<Vec<Value>>;
}
