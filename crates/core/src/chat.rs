//! Chat requests and replies, and the model trait.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The role of a message's author in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    System,
    User,
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// A tool call requested by the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique within a conversation; the tool's result refers to it.
    pub id: String,
    pub name: String,
    /// The arguments as the JSON value that the model wrote.
    pub arguments: Value,
}

/// A tool's description for the model: name, purpose, JSON schema of its arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    pub parameters: Value,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Speaker,
    /// The text; for a generated message, the text as sampled, including tool-call markup.
    pub content: String,
    /// Tool calls parsed from an assistant's text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For a tool message: the id of the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// For a tool message: the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    fn plain(role: Speaker, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    pub fn system(content: impl Into<String>) -> Self {
        Self::plain(Speaker::System, content)
    }

    pub fn user(content: impl Into<String>) -> Self {
        Self::plain(Speaker::User, content)
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Self::plain(Speaker::Assistant, content)
    }

    /// The result of the tool call `call`.
    pub fn tool(call: &ToolCall, content: impl Into<String>) -> Self {
        Self {
            tool_call_id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            ..Self::plain(Speaker::Tool, content)
        }
    }
}

/// How the next token is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy: the most likely token, ties to the lowest id.
    pub temperature: f64,
    /// Nucleus sampling: the smallest set of tokens whose total probability reaches this; 1 is off.
    pub top_p: f64,
    /// Only the k most likely tokens; 0 is off.
    pub top_k: usize,
    /// Maximum number of tokens in one response.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 512 }
    }
}

/// Whether the model may, must or must not call a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Tools are not offered to the model, and the text is not searched for calls.
    None,
    /// At least one call of any offered tool.
    Required,
    /// At least one call, of this tool only.
    Named(String),
}

/// The required format of a response.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under this schema.
    JsonSchema(Value),
}

/// One request of an agent. The runner (trainer, evaluator) sets the sampling; an agent may only
/// tighten it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The role in which the agent speaks (`write`, `check`, `rewrite`, …), by which training
    /// selects calls.
    pub agent_role: String,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub tools: Vec<ToolSpec>,
    /// At most this many tokens, if fewer than the sampling allows.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Stop strings: generation ends at any of these, which are not part of the answer.
    #[serde(default)]
    pub stop: Vec<String>,
    #[serde(default)]
    pub tool_choice: ToolChoice,
    #[serde(default)]
    pub response_format: ResponseFormat,
    /// Generation ends after the first tool call.
    #[serde(default)]
    pub single_call: bool,
    /// Prefix of the reply's tool-call ids, followed by the call's position in the reply, counted
    /// from 0. `None`: ids use the position in the conversation.
    #[serde(default)]
    pub call_prefix: Option<String>,
    /// Whether the reply includes its tokens ([`ChatReply::tokens`]).
    #[serde(default)]
    pub report_tokens: bool,
}

impl ChatRequest {
    /// The tools offered to the model: none if `tool_choice` forbids them.
    pub fn offered_tools(&self) -> &[ToolSpec] {
        if self.tool_choice == ToolChoice::None { &[] } else { &self.tools }
    }

    /// Whether sampling is constrained by a grammar: a required tool call or a response format.
    pub fn is_constrained(&self) -> bool {
        matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
            || self.response_format != ResponseFormat::Text
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-turn token or a stop string.
    Stop,
    /// The token limit or the end of the context window.
    Length,
}

/// A model's reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The assistant's message: text as sampled (without the end-of-turn token) and tool calls.
    pub message: Message,
    /// The parse error, if the text contains tool-call markup that does not parse.
    pub malformed_call: Option<String>,
    pub finish: FinishReason,
    /// The reply's tokens, if requested and supported by the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Box<ReplyTokens>>,
}

impl ChatReply {
    /// A reply without token ids, for scripted models.
    pub fn of(message: Message, finish: FinishReason) -> Self {
        Self { message, malformed_call: None, finish, tokens: None }
    }
}

/// The tokens of a reply, as an OpenAI-compatible server reports them in addition to the text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplyTokens {
    /// The text outside tool calls.
    pub content: String,
    pub prompt_ids: Vec<u32>,
    /// Prompt tokens that were found in the cache.
    pub cached_tokens: usize,
    /// Includes the end-of-turn token if it was sampled.
    pub response_ids: Vec<u32>,
    /// One per response token; equal in length to `response_ids`.
    pub logprobs: Vec<f32>,
    /// The bytes of each response token's text.
    pub bytes: Vec<Vec<u8>>,
    /// Number of weight updates of the policy that generated the reply.
    pub policy_version: u64,
}

/// A model's failure to answer. An infrastructure failure, not the policy's: the rollout has no
/// reward.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ModelError {
    #[error("the prompt has {tokens} tokens, more than the {limit} that are allowed")]
    PromptTooLong { tokens: usize, limit: usize },
    #[error("the conversation cannot be rendered: {0}")]
    Template(String),
    #[error("the model gave no answer: {0}")]
    Unavailable(String),
}

/// A model that continues conversations: in process the generation engine, over HTTP the same
/// engine behind the Lightning Server, in tests a script.
#[async_trait]
pub trait ChatModel: Send + Sync {
    async fn chat(&self, request: ChatRequest) -> Result<ChatReply, ModelError>;
}
