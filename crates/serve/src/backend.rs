//! What a server asks of whoever generates, and what comes back.
//!
//! Protocols and generators meet here and nowhere else: a protocol makes [`Ask`]s and reads
//! [`Event`]s, a [`Backend`] does the reverse.

pub mod stub;

use leyden_core::{ChatRequest, FinishReason, Sampling, ToolCall};
use tokio::sync::mpsc::UnboundedReceiver;

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly every prompt is of the large variant")]
pub enum Prompt {
    Chat(ChatRequest),
    /// Text that is tokenised as it stands, without a template.
    Text(String),
    Ids(Vec<u32>),
}

/// One generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub prompt: Prompt,
    /// Temperature, nucleus, top-k and the most tokens. A backend may overrule it, as a
    /// trainer's does, whose sampling belongs to the experiment. For `Prompt::Chat` the
    /// limit here holds, not the request's own.
    pub sampling: Sampling,
    /// Texts before which generation ends. (Those of a chat request are here too.)
    pub stop: Vec<String>,
    /// Seed of the draws; `None` lets the backend choose one.
    pub seed: Option<u64>,
    /// Alternatives reported beside every token; 0 is none.
    pub top_logprobs: usize,
    /// Whose conversation it is: `rollout/attempt` where the URL names them. Calls of one
    /// conversation grow by tokens, and share a cache.
    pub conversation: Option<String>,
    /// The ids of the response's tool calls are this and their position, counted from 0: a
    /// client's history may hold calls of many responses, and their ids must differ. A call
    /// of another id is renamed before the client sees it, and a backend that compares ids
    /// will then not know its own message again.
    pub call_prefix: String,
    /// Whether generation goes on where the model would end it, up to the limit: load tests
    /// ask for answers of one length. An answer that a grammar binds ends with the grammar.
    pub ignore_eos: bool,
    /// Whether deltas are wanted while the text is made. Without, only the end is sent.
    pub stream: bool,
}

/// A part of the response, in the order of generation. All parts joined are the whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Text outside tool calls. Joined, the deltas give exactly [`Answer::content`].
    pub content: String,
    /// Tool calls that are complete now.
    pub tool_calls: Vec<ToolCall>,
    pub tokens: Vec<Token>,
}

/// One sampled token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Token {
    pub id: u32,
    /// Natural logarithm of the probability with which it was drawn.
    pub logprob: f32,
    /// The bytes of its text; a byte-level token may hold a part of a character only.
    pub bytes: Vec<u8>,
    /// The most likely tokens in its place, most likely first, as many as were asked for:
    /// id, log-probability, bytes.
    pub top: Vec<(u32, f32, Vec<u8>)>,
}

/// The whole response.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Text outside tool calls, without the stop text and the end-of-turn token.
    pub content: String,
    pub tool_calls: Vec<ToolCall>,
    /// Set where the text holds tool-call markup that does not parse; says what is wrong.
    pub malformed_call: Option<String>,
    pub finish: FinishReason,
    /// The text of [`Ask::stop`] that ended generation, where one did.
    pub stop_text: Option<String>,
    pub prompt_ids: Vec<u32>,
    /// Every sampled token, the end-of-turn token included.
    pub tokens: Vec<Token>,
    /// Prompt tokens that were found in the cache.
    pub cached_tokens: usize,
    /// Number of weight updates behind the policy that wrote it.
    pub policy_version: u64,
    /// Whether a grammar restricted the sampler.
    pub constrained: bool,
}

/// What a backend says of an [`Ask`]. The last event is `Finished` or `Failed`; a channel that
/// closes before one of them is a failure too.
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

/// Why there is no answer. The protocols turn each into their status and shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Prompt, or prompt and least response, longer than the context. 400.
    #[error(
        "this prompt is too long: it has {tokens} tokens and the model's context is {limit} \
         (context_length_exceeded: prompt is too long)"
    )]
    ContextLength { tokens: usize, limit: usize },
    /// Something in the request that cannot be honoured; names the field. 400.
    #[error("{message}")]
    Invalid { param: Option<String>, message: String },
    /// The rollout that the request belongs to is over or unknown. 404.
    #[error("{0}")]
    Gone(String),
    /// Weights are being updated, or there is no room; try again. 429 with Retry-After.
    #[error("{message}")]
    Busy { retry_after_seconds: u64, message: String },
    /// A deadline of the server passed; names it. 504.
    #[error("{0}")]
    Late(String),
    /// The server is going down. 503.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The model failed (memory, numbers that are not finite). 500.
    #[error("the model failed: {0}")]
    Internal(String),
}

/// A model as `/v1/models` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Longest prompt and response together, in tokens.
    pub context: usize,
}

/// A number of a backend's own for `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// As Prometheus knows it: `leyden_engine_running`, or `…_total` where it only grows.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

/// Whoever generates.
pub trait Backend: Send + Sync + 'static {
    fn models(&self) -> Vec<ModelCard>;

    /// Begins a generation. Dropping the receiver cancels it. Never blocks; whatever is wrong
    /// arrives as [`Event::Failed`].
    fn submit(&self, ask: Ask) -> UnboundedReceiver<Event>;

    /// What it counts.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}
