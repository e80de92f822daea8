//! The calculator agent: one assistant, one tool.
//!
//! The loop is the paper's AutoGen agent as a graph of two nodes:
//!
//! ```text
//!        ┌──────────────┐  tool calls   ┌────────────┐
//! task → │     solve    │ ────────────→ │ calculator │
//!        │ (model call) │ ←──────────── │   (tool)   │
//!        └──────────────┘    results    └────────────┘
//!               │ no tool call
//!               ▼
//!     answer: ### ANSWER: x ###
//! ```
//!
//! After each tool result the model is called again, so an ordinary rollout has two calls.
//! The answer is the last message; the scorer takes the span out of it.

use std::collections::HashSet;

use leyden_calcx::calculate;
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, SignalKind, Task, ToolCall,
    ToolSpec, async_trait,
};
use serde_json::{Value, json};

/// The one role in which this agent calls its model.
pub const ROLE: &str = "solve";

/// How much the system prompt explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// Instructions for a model that has never seen the agent.
    Full,
    /// One line, for models that know the protocol already.
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

/// The calculator agent.
#[derive(Debug, Clone)]
pub struct CalculatorAgent {
    prompt: Prompt,
    /// Most model calls of one rollout.
    max_turns: usize,
}

impl CalculatorAgent {
    pub fn new(prompt: Prompt, max_turns: usize) -> Self {
        Self { prompt, max_turns: max_turns.max(1) }
    }

    /// The conversation before the first call. Demonstrations begin with the same messages.
    pub fn opening(&self, question: &str) -> Vec<Message> {
        vec![Message::system(self.prompt.text()), Message::user(question)]
    }

    /// The tool as the model is told of it.
    pub fn tools() -> Vec<ToolSpec> {
        vec![ToolSpec {
            name: "calculator".to_owned(),
            description: "Evaluates one arithmetic expression exactly.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "expression": {
                        "type": "string",
                        "description": "numbers, + - * / ** and parentheses"
                    }
                },
                "required": ["expression"]
            }),
        }]
    }
}

#[async_trait]
impl Agent for CalculatorAgent {
    fn name(&self) -> &str {
        "calc"
    }

    fn roles(&self) -> &[&str] {
        &[ROLE]
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        let mut messages = self.opening(&task.question);
        let mut asked = HashSet::new();
        for _ in 0..self.max_turns {
            let reply = episode
                .chat(ChatRequest {
                    agent_role: ROLE.to_owned(),
                    messages: messages.clone(),
                    tools: Self::tools(),
                    ..ChatRequest::default()
                })
                .await?;
            let calls = reply.message.tool_calls.clone();
            if calls.is_empty() && reply.malformed_call.is_none() {
                return Ok(AgentOutput::of(Some(reply.message.content)));
            }
            messages.push(reply.message);
            if let Some(what) = reply.malformed_call {
                // The model is told, as a tool would tell it, and may try again.
                let call = ToolCall {
                    id: "call_invalid".to_owned(),
                    name: "calculator".to_owned(),
                    arguments: Value::Null,
                };
                messages.push(Message::tool(&call, format!("ERROR: {what}")));
            }
            for call in &calls {
                messages.push(Message::tool(call, answer(call, episode, &mut asked)));
            }
        }
        episode.signal(SignalKind::TurnLimit, format!("no answer after {} calls", self.max_turns));
        Ok(AgentOutput::of(None))
    }
}

/// Runs one tool call; whatever is wrong with it is told to the model and noted as a signal.
fn answer(call: &ToolCall, episode: &Episode<'_>, asked: &mut HashSet<String>) -> String {
    if call.name != "calculator" {
        episode.signal(SignalKind::UnknownTool, call.name.clone());
        return format!("ERROR: there is no tool `{}`, only `calculator`", call.name);
    }
    // Small models write the number itself where a string is asked for: no reason to refuse.
    let expression = match call.arguments.get("expression") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => {
            episode.signal(SignalKind::MalformedCall, "no argument `expression`");
            return "ERROR: the argument `expression` is missing".to_owned();
        }
    };
    if !asked.insert(expression.clone()) {
        episode.signal(SignalKind::RepeatedCall, expression.clone());
    }
    let output = calculate(&expression);
    if output.starts_with("ERROR") {
        episode.signal(SignalKind::ToolError, format!("{expression} → {output}"));
    }
    output
}
