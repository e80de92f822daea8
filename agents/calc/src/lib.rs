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
//! The model is called again after each tool result, so a typical rollout has two calls. The
//! answer is the last message, from which the scorer extracts the span.

use std::collections::HashSet;

use leyden_calcx::{calculate, calculate_single};
use leyden_core::{
    Agent, AgentError, AgentOutput, ChatRequest, Episode, Message, SignalKind, Task, ToolCall,
    ToolSpec, async_trait,
};
use serde_json::{Value, json};

/// The only role of this agent.
pub const ROLE: &str = "solve";

/// The system prompt's level of detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// Instructions for a model that has never seen the agent.
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

    /// The text for a calculator with one operation a call. Models that are already trained on
    /// the protocol know it from their demonstrations.
    fn single_operation_text(self) -> &'static str {
        match self {
            Self::Full => include_str!("../prompts/full_single_operation.txt").trim_ascii_end(),
            Self::Compact => self.text(),
        }
    }
}

/// The calculator agent.
#[derive(Debug, Clone)]
pub struct CalculatorAgent {
    prompt: Prompt,
    /// Maximum model calls per rollout.
    max_turns: usize,
    /// Whether the calculator takes a single operation a call.
    single_operation: bool,
}

impl CalculatorAgent {
    pub fn new(prompt: Prompt, max_turns: usize) -> Self {
        Self { prompt, max_turns: max_turns.max(1), single_operation: false }
    }

    /// Whether the calculator takes one binary operation on two numbers a call, false by default.
    /// A problem of k operations then takes k calls; any other expression is answered with an
    /// error and recorded as [`SignalKind::ToolError`].
    #[must_use]
    pub fn with_single_operation(mut self, single_operation: bool) -> Self {
        self.single_operation = single_operation;
        self
    }

    /// The conversation before the first call. Demonstrations begin with the same messages.
    pub fn opening(&self, question: &str) -> Vec<Message> {
        let system = match self.single_operation {
            true => self.prompt.single_operation_text(),
            false => self.prompt.text(),
        };
        vec![Message::system(system), Message::user(question)]
    }

    /// The tool's specification without options.
    pub fn tools() -> Vec<ToolSpec> {
        tools("Evaluates one arithmetic expression exactly.", "numbers, + - * / ** and parentheses")
    }

    /// The tool's specification with this agent's options.
    pub fn own_tools(&self) -> Vec<ToolSpec> {
        match self.single_operation {
            true => tools(
                "Evaluates one operation on two numbers exactly.",
                "two numbers and one of + - * /",
            ),
            false => Self::tools(),
        }
    }

    fn evaluate(&self, expression: &str) -> String {
        if self.single_operation { calculate_single(expression) } else { calculate(expression) }
    }

    /// Runs one tool call; errors are returned to the model and recorded as signals.
    fn answer(&self, call: &ToolCall, episode: &Episode<'_>, seen: &mut HashSet<String>) -> String {
        if call.name != "calculator" {
            episode.signal(SignalKind::UnknownTool, call.name.clone());
            return format!("ERROR: there is no tool `{}`, only `calculator`", call.name);
        }
        // Small models write a number instead of a string: accept it.
        let expression = match call.arguments.get("expression") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => {
                episode.signal(SignalKind::MalformedCall, "no argument `expression`");
                return "ERROR: the argument `expression` is missing".to_owned();
            }
        };
        if !seen.insert(expression.clone()) {
            episode.signal(SignalKind::RepeatedCall, expression.clone());
        }
        let output = self.evaluate(&expression);
        if output.starts_with("ERROR") {
            episode.signal(SignalKind::ToolError, format!("{expression} → {output}"));
        }
        output
    }
}

fn tools(description: &str, expression: &str) -> Vec<ToolSpec> {
    vec![ToolSpec {
        name: "calculator".to_owned(),
        description: description.to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {
                "expression": { "type": "string", "description": expression }
            },
            "required": ["expression"]
        }),
    }]
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
        let mut seen = HashSet::new();
        for _ in 0..self.max_turns {
            let reply = episode
                .chat(ChatRequest {
                    agent_role: ROLE.to_owned(),
                    messages: messages.clone(),
                    tools: self.own_tools(),
                    ..ChatRequest::default()
                })
                .await?;
            let calls = reply.message.tool_calls.clone();
            if calls.is_empty() && reply.malformed_call.is_none() {
                return Ok(AgentOutput::of(Some(reply.message.content)));
            }
            messages.push(reply.message);
            if let Some(what) = reply.malformed_call {
                // Report the error as a tool result, so that the model can retry.
                let call = ToolCall {
                    id: "call_invalid".to_owned(),
                    name: "calculator".to_owned(),
                    arguments: Value::Null,
                };
                messages.push(Message::tool(&call, format!("ERROR: {what}")));
            }
            for call in &calls {
                messages.push(Message::tool(call, self.answer(call, episode, &mut seen)));
            }
        }
        episode.signal(SignalKind::TurnLimit, format!("no answer after {} calls", self.max_turns));
        Ok(AgentOutput::of(None))
    }
}
