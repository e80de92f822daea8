//! The retrieval agent: one assistant, one search tool.
//!
//! The loop is the paper's retrieval agent as a graph of two nodes:
//!
//! ```text
//!        ┌──────────────┐   tool calls   ┌──────────┐
//! task → │    answer    │ ─────────────→ │ retrieve │
//!        │ (model call) │ ←───────────── │  (tool)  │
//!        └──────────────┘    passages    └──────────┘
//!               │ no tool call
//!               ▼
//!     answer: <answer>x</answer>
//! ```
//!
//! After each result the model decides whether to search again. A message without a tool call is
//! its last message, from which the scorer extracts the span.

mod tool;

use std::sync::Arc;

use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, SignalKind, Task, ToolCall,
    async_trait,
};
use leyden_musique::scorer::answer_span;
use leyden_retrieval::Retriever;
use serde_json::Value;

use tool::Searches;
pub use tool::{TOOL, render, spec};

/// The only role of this agent.
pub const ROLE: &str = "answer";

/// The system prompt's level of detail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prompt {
    /// Instructions for a model that has never seen the agent.
    #[default]
    Full,
    /// One line, for models already trained on the protocol.
    Compact,
}

impl Prompt {
    fn text(self) -> &'static str {
        match self {
            Self::Full => include_str!("../prompts/full.txt").trim_ascii_end(),
            Self::Compact => include_str!("../prompts/compact.txt").trim_ascii_end(),
        }
    }
}

/// The agent's options.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub prompt: Prompt,
    /// Maximum model calls per rollout.
    pub max_turns: usize,
    /// Maximum searches per rollout; further ones return an error that asks the model to answer.
    pub max_searches: usize,
    /// Passages per search result.
    pub passages: usize,
    /// Maximum characters shown of a passage; the rest is truncated.
    pub passage_length: usize,
    /// Reward of a search, times the share of the question's supporting passages that it is the
    /// first to find, besides that of the answer; 0 is none.
    pub process_reward: f64,
}

impl Default for Options {
    /// The paper's four passages, and one search more than four-hop questions need.
    fn default() -> Self {
        Self {
            prompt: Prompt::Full,
            max_turns: 6,
            max_searches: 5,
            passages: 4,
            passage_length: 1200,
            process_reward: 0.0,
        }
    }
}

/// The retrieval agent.
#[derive(Clone)]
pub struct RagAgent {
    retriever: Arc<dyn Retriever>,
    options: Options,
}

impl RagAgent {
    /// Creates the agent; turns and passages per search are at least one.
    pub fn new(retriever: Arc<dyn Retriever>, options: Options) -> Self {
        let options = Options {
            max_turns: options.max_turns.max(1),
            passages: options.passages.max(1),
            ..options
        };
        Self { retriever, options }
    }

    /// The conversation before the first call. Demonstrations begin with the same messages.
    pub fn opening(&self, question: &str) -> Vec<Message> {
        vec![Message::system(self.options.prompt.text()), Message::user(question)]
    }
}

#[async_trait]
impl Agent for RagAgent {
    fn name(&self) -> &str {
        "rag"
    }

    fn roles(&self) -> &[&str] {
        &[ROLE]
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let mut messages = self.opening(&task.question);
        let mut searches = Searches::new(self.retriever.as_ref(), &self.options, task);
        for _ in 0..self.options.max_turns {
            let reply = episode
                .chat(ChatRequest {
                    agent_role: ROLE.to_owned(),
                    messages: messages.clone(),
                    tools: vec![spec()],
                    ..ChatRequest::default()
                })
                .await?;
            let calls = reply.message.tool_calls.clone();
            if calls.is_empty() && reply.malformed_call.is_none() {
                let text = reply.message.content;
                if answer_span(&text).is_none_or(str::is_empty) {
                    episode.signal(SignalKind::NoAnswer, "the last message has no <answer>");
                }
                return Ok(AgentOutput::of(Some(text)));
            }
            messages.push(reply.message);
            if let Some(what) = reply.malformed_call {
                // Report the error as a tool result, so that the model can retry.
                let call = ToolCall {
                    id: "call_invalid".to_owned(),
                    name: TOOL.to_owned(),
                    arguments: Value::Null,
                };
                messages.push(Message::tool(&call, format!("ERROR: {what}")));
            }
            for call in &calls {
                // A failed search is not the policy's fault: the rollout has no reward.
                let result = searches.run(call, episode).map_err(|error| AgentError::Task {
                    task: task.id.clone(),
                    what: error.to_string(),
                })?;
                messages.push(Message::tool(call, result));
            }
        }
        let turns = self.options.max_turns;
        episode.signal(SignalKind::TurnLimit, format!("no answer after {turns} calls"));
        Ok(AgentOutput::of(None))
    }
}
