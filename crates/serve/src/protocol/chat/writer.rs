//! The response of a chat completion, whole or in chunks.

use leyden_core::{FinishReason, ToolCall};
use serde::Serialize;
use serde_json::{Value, json};

use crate::backend::{Answer, Token};
use crate::call::Written;
use crate::protocol::bodies::{Body, Head};
use crate::protocol::error::{ApiError, Shape};
use crate::protocol::logprobs::{ChatLogprobs, Ids, TokenText};
use crate::protocol::plan::Writer;
use crate::protocol::sse::Sse;
use crate::protocol::usage::Usage;

const CHUNK: &str = "chat.completion.chunk";

/// Response options set by the request.
pub(super) struct Options {
    pub head: Head,
    /// `None` if log-probabilities are not reported.
    pub logprobs: Option<TokenText>,
    pub token_ids: bool,
    pub include_usage: bool,
    pub offers_tools: bool,
    pub choices: usize,
}

pub(super) struct ChatWriter {
    options: Options,
    prompt_sent: bool,
    choices: Vec<Streamed>,
}

/// The streaming state of a choice.
#[derive(Default)]
struct Streamed {
    calls: usize,
    /// Tokens held back until the next chunk with content.
    tokens: Vec<Token>,
}

/// A choice as serialised: with a message in a whole response, with a delta in a chunk.
#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    #[serde(flatten)]
    content_field: ContentField,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Ids<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ContentField {
    Message(Value),
    Delta(Value),
}

impl ChatWriter {
    pub fn new(options: Options) -> Self {
        let choices = (0..options.choices).map(|_| Streamed::default()).collect();
        Self { options, prompt_sent: false, choices }
    }

    fn choice<'a>(
        &self,
        index: usize,
        content_field: ContentField,
        tokens: &'a [Token],
        finish_reason: Option<&'static str>,
    ) -> Choice<'a> {
        Choice {
            index,
            content_field,
            logprobs: self.options.logprobs.map(|text| text.chat(tokens)),
            finish_reason,
            token_ids: self.options.token_ids.then_some(Ids(tokens)),
        }
    }

    /// Writes a chunk with one choice, including the held-back tokens.
    fn chunk(
        &mut self,
        index: usize,
        delta: Value,
        finish: Option<&'static str>,
        prompt_ids: Option<&[u32]>,
        out: &mut Sse,
    ) {
        let tokens = std::mem::take(&mut self.choices[index].tokens);
        let mut choice = self.choice(index, ContentField::Delta(delta), &tokens, finish);
        choice.logprobs = choice.logprobs.filter(|_| !tokens.is_empty());
        let choices = [choice];
        out.data(&Body {
            usage: self.options.include_usage.then_some(&Value::Null),
            prompt_token_ids: prompt_ids,
            ..self.options.head.body(CHUNK, &choices)
        });
    }
}

impl Writer for ChatWriter {
    fn begun(&mut self, index: usize, prompt_ids: &[u32], policy_version: u64, out: &mut Sse) {
        let first = !std::mem::replace(&mut self.prompt_sent, true);
        if first {
            self.options.head.policy_version = policy_version;
        }
        let content = if self.options.offers_tools { Value::Null } else { "".into() };
        let delta = json!({"role": "assistant", "content": content});
        let prompt_ids = (first && self.options.token_ids).then_some(prompt_ids);
        self.chunk(index, delta, None, prompt_ids, out);
    }

    fn text(&mut self, index: usize, text: &str, tokens: Vec<Token>, out: &mut Sse) {
        self.choices[index].tokens.extend(tokens);
        if !text.is_empty() {
            self.chunk(index, json!({"content": text}), None, None, out);
        }
    }

    fn call(&mut self, index: usize, tool_call: &ToolCall, tokens: Vec<Token>, out: &mut Sse) {
        let choice = &mut self.choices[index];
        choice.tokens.extend(tokens);
        let mut call = call(tool_call);
        call["index"] = choice.calls.into();
        choice.calls += 1;
        self.chunk(index, json!({"tool_calls": [call]}), None, None, out);
    }

    fn whole(&mut self, answers: &[Answer]) -> Written {
        if let Some(first) = answers.first() {
            self.options.head.policy_version = first.policy_version;
        }
        let numbered = answers.iter().enumerate();
        let choices: Vec<Choice> = numbered
            .map(|(index, answer)| {
                let content_field = ContentField::Message(message(answer));
                self.choice(index, content_field, &answer.tokens, Some(finish_reason(answer)))
            })
            .collect();
        let prompt_ids = answers.first().map(|answer| answer.prompt_ids.as_slice());
        let usage = Usage::of(answers, answers.len()).completions();
        let body = Body {
            usage: Some(&usage),
            prompt_token_ids: prompt_ids.filter(|_| self.options.token_ids),
            ..self.options.head.body("chat.completion", &choices)
        };
        let text = body.text();
        let finish_reason = answers.first().map(|answer| finish_reason(answer).to_owned());
        Written { text, usage, finish_reason }
    }

    fn close(&mut self, answers: &[Answer], body: &Written, out: &mut Sse) {
        for (index, answer) in answers.iter().enumerate() {
            self.chunk(index, json!({}), Some(finish_reason(answer)), None, out);
        }
        // Sent separately from the last choice: AutoGen drops a finish reason that arrives with
        // usage.
        if self.options.include_usage {
            let none: [Choice; 0] = [];
            out.data(&Body { usage: Some(&body.usage), ..self.options.head.body(CHUNK, &none) });
        }
        out.done();
    }

    fn failed(&mut self, error: &ApiError, out: &mut Sse) {
        out.data(&error.body(Shape::OpenAi));
        out.done();
    }
}

fn message(answer: &Answer) -> Value {
    let calls: Vec<Value> = answer.tool_calls.iter().map(call).collect();
    // Clients treat text alongside tool calls as a thought; without text, content must be null.
    let content = match answer.content.as_str() {
        "" if !calls.is_empty() => Value::Null,
        text => text.into(),
    };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

/// With tool calls the reason is `tool_calls`, even if the limit truncated text after them: an
/// agent that receives `length` gives up, and these calls are complete.
fn finish_reason(answer: &Answer) -> &'static str {
    match answer.finish {
        _ if !answer.tool_calls.is_empty() => "tool_calls",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": argument_text(&call.arguments)},
    })
}

/// Arguments as clients parse them. Invalid JSON is returned verbatim.
pub(in crate::protocol) fn argument_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
