//! The interface between the protocols and the generator: requests in, events out.
//!
//! Protocols create [`Ask`]s and read [`Event`]s; a [`Backend`] does the reverse.

pub mod stub;

use leyden_core::{ChatRequest, FinishReason, Sampling, ToolCall};
use tokio::sync::mpsc::UnboundedReceiver;

/// The model's input.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly every prompt is of the large variant")]
pub enum Prompt {
    Chat(ChatRequest),
    /// Text that is tokenised verbatim, without a chat template.
    Text(String),
    Ids(Vec<u32>),
}

/// A generation request.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub prompt: Prompt,
    /// Temperature, top-p, top-k and the token limit. A backend may override it: a trainer's
    /// backend uses the experiment's sampling. For `Prompt::Chat` this limit applies, not the chat
    /// request's own.
    pub sampling: Sampling,
    /// Stop strings, including those of a chat request.
    pub stop: Vec<String>,
    /// Sampling seed; `None` lets the backend choose one.
    pub seed: Option<u64>,
    /// Number of top alternatives reported per token; 0 for none.
    pub top_logprobs: usize,
    /// Conversation id: `rollout/attempt` where the URL names them. Successive calls of one
    /// conversation extend the same token sequence and share a KV cache.
    pub conversation: Option<String>,
    /// Prefix of the response's tool call ids; the call's 0-based position is appended. A client's
    /// history may hold calls of many responses, so the ids must differ. A call with another id is
    /// renamed before the client sees it, and a backend that compares ids will then not recognise
    /// its own message.
    pub call_prefix: String,
    /// Whether to ignore the end-of-turn token and generate up to the limit, so that load tests
    /// get responses of equal length. A grammar-constrained response still ends with the grammar.
    pub ignore_eos: bool,
    /// Whether to send deltas during generation. If not set, only the final event is sent.
    pub stream: bool,
}

/// A part of the response, in generation order. The concatenated deltas are the whole response.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Text outside tool calls. Joined, the deltas give exactly [`Answer::content`].
    pub content: String,
    /// Tool calls completed by this delta.
    pub tool_calls: Vec<ToolCall>,
    pub tokens: Vec<Token>,
}

/// One sampled token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Token {
    pub id: u32,
    /// Log-probability (natural logarithm) under the sampling distribution.
    pub logprob: f32,
    /// The bytes of its text; a byte-level token may be part of a character.
    pub bytes: Vec<u8>,
    /// The most likely tokens at this position, most likely first, up to the requested number: id,
    /// log-probability, bytes.
    pub top: Vec<(u32, f32, Vec<u8>)>,
}

/// The whole response.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Text outside tool calls, without the stop text and the end-of-turn token.
    pub content: String,
    pub tool_calls: Vec<ToolCall>,
    /// Parse error of malformed tool-call markup in the text, if any.
    pub malformed_call: Option<String>,
    pub finish: FinishReason,
    /// The stop string that ended generation, if any.
    pub stop_text: Option<String>,
    pub prompt_ids: Vec<u32>,
    /// Every sampled token, the end-of-turn token included.
    pub tokens: Vec<Token>,
    /// Prompt tokens found in the KV cache.
    pub cached_tokens: usize,
    /// Number of weight updates of the policy that generated it.
    pub policy_version: u64,
    /// Whether a grammar restricted the sampler.
    pub constrained: bool,
}

/// A backend's event for an [`Ask`]. The last event is `Finished` or `Failed`; a channel that
/// closes before either is also a failure.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Generation begins.
    Started {
        prompt_ids: Vec<u32>,
        policy_version: u64,
    },
    Delta(Delta),
    Finished(Box<Answer>),
    Failed(Failure),
}

/// Why a generation failed. Each protocol maps it to its own status and error body.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The prompt, or the prompt plus a minimal response, exceeds the context. 400.
    #[error(
        "this prompt is too long: it has {tokens} tokens and the model's context is {limit} \
         (context_length_exceeded: prompt is too long)"
    )]
    ContextLength { tokens: usize, limit: usize },
    /// An unsupported or invalid request field; names it. 400.
    #[error("{message}")]
    Invalid { param: Option<String>, message: String },
    /// The rollout that the request belongs to is over or unknown. 404.
    #[error("{0}")]
    Gone(String),
    /// Weights are being updated, or capacity is exhausted; retry later. 429 with Retry-After.
    #[error("{message}")]
    Busy { retry_after_seconds: u64, message: String },
    /// A server deadline expired; names it. 504.
    #[error("{0}")]
    Late(String),
    /// The server is shutting down. 503.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The model failed (out of memory, non-finite values). 500.
    #[error("the model failed: {0}")]
    Internal(String),
}

/// A model as `/v1/models` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Context length (prompt plus response), in tokens.
    pub context: usize,
}

/// A backend-specific metric for `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Prometheus name: `leyden_engine_running`, or `…_total` for a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

/// A generator.
pub trait Backend: Send + Sync + 'static {
    fn models(&self) -> Vec<ModelCard>;

    /// Starts a generation. Dropping the receiver cancels it. Never blocks; errors arrive as
    /// [`Event::Failed`].
    fn submit(&self, ask: Ask) -> UnboundedReceiver<Event>;

    /// The backend's metrics.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}
