//! The response of a chat completion, whole or in chunks.

use leyden_core::{FinishReason, ToolCall};
use serde_json::{Map, Value, json};

use crate::backend::{Answer, Token};
use crate::protocol::error::{ApiError, Shape};
use crate::protocol::logprobs::{self, TokenText};
use crate::protocol::plan::Writer;
use crate::protocol::sse::Sse;
use crate::protocol::usage::Usage;

/// What the request asked of the response.
pub(super) struct Options {
    pub id: String,
    pub created: u64,
    pub model: String,
    /// `None` where log-probabilities are not reported.
    pub logprobs: Option<TokenText>,
    pub token_ids: bool,
    pub include_usage: bool,
    pub offers_tools: bool,
    pub choices: usize,
}

pub(super) struct ChatWriter {
    options: Options,
    policy_version: u64,
    prompt_sent: bool,
    choices: Vec<Choice>,
}

/// What has been streamed of a choice.
#[derive(Default)]
struct Choice {
    calls: usize,
    /// Tokens that wait for the next chunk with something to say.
    tokens: Vec<Token>,
}

impl ChatWriter {
    pub fn new(options: Options) -> Self {
        let choices = (0..options.choices).map(|_| Choice::default()).collect();
        Self { options, policy_version: 0, prompt_sent: false, choices }
    }

    /// The fields of every body, whole or chunk. The fingerprint is what OpenAI means by it:
    /// it changes when the weights do.
    fn head(&self, object: &str) -> Map<String, Value> {
        let Options { id, created, model, .. } = &self.options;
        Map::from_iter([
            ("id".to_owned(), id.as_str().into()),
            ("object".to_owned(), object.into()),
            ("created".to_owned(), (*created).into()),
            ("model".to_owned(), model.as_str().into()),
            ("system_fingerprint".to_owned(), format!("policy-{}", self.policy_version).into()),
        ])
    }

    /// A chunk with one choice, which takes the tokens that wait.
    fn chunk(&mut self, index: usize, delta: Value, finish: Option<&str>) -> Map<String, Value> {
        let tokens = std::mem::take(&mut self.choices[index].tokens);
        let mut chunk = self.head("chat.completion.chunk");
        let mut choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": self.options.logprobs.filter(|_| !tokens.is_empty()).map(|text| text.chat(&tokens)),
            "finish_reason": finish,
        });
        if self.options.token_ids {
            choice["token_ids"] = logprobs::ids(&tokens).into();
        }
        chunk.insert("choices".to_owned(), json!([choice]));
        if self.options.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk
    }

    fn choice(&self, index: usize, answer: &Answer) -> Value {
        let calls: Vec<Value> = answer.tool_calls.iter().map(call).collect();
        // Clients take text beside calls for a thought; none at all must be null for them.
        let content = match answer.content.as_str() {
            "" if !calls.is_empty() => Value::Null,
            text => text.into(),
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        let mut choice = json!({
            "index": index,
            "message": message,
            "logprobs": self.options.logprobs.map(|text| text.chat(&answer.tokens)),
            "finish_reason": finish_reason(answer),
        });
        if self.options.token_ids {
            choice["token_ids"] = logprobs::ids(&answer.tokens).into();
        }
        choice
    }
}

impl Writer for ChatWriter {
    fn begun(&mut self, index: usize, prompt_ids: &[u32], policy_version: u64, out: &mut Sse) {
        if !self.prompt_sent {
            self.policy_version = policy_version;
        }
        let content = if self.options.offers_tools { Value::Null } else { "".into() };
        let mut chunk = self.chunk(index, json!({"role": "assistant", "content": content}), None);
        if self.options.token_ids && !self.prompt_sent {
            chunk.insert("prompt_token_ids".to_owned(), prompt_ids.into());
        }
        self.prompt_sent = true;
        out.data(&chunk);
    }

    fn text(&mut self, index: usize, text: &str, tokens: Vec<Token>, out: &mut Sse) {
        self.choices[index].tokens.extend(tokens);
        if !text.is_empty() {
            out.data(&self.chunk(index, json!({"content": text}), None));
        }
    }

    fn call(&mut self, index: usize, tool_call: &ToolCall, tokens: Vec<Token>, out: &mut Sse) {
        let choice = &mut self.choices[index];
        choice.tokens.extend(tokens);
        let mut call = call(tool_call);
        call["index"] = choice.calls.into();
        choice.calls += 1;
        out.data(&self.chunk(index, json!({"tool_calls": [call]}), None));
    }

    fn whole(&mut self, answers: &[Answer]) -> Value {
        if let Some(first) = answers.first() {
            self.policy_version = first.policy_version;
        }
        let mut body = self.head("chat.completion");
        let choices: Vec<Value> =
            answers.iter().enumerate().map(|(i, answer)| self.choice(i, answer)).collect();
        body.insert("choices".to_owned(), choices.into());
        body.insert("usage".to_owned(), Usage::of(answers, answers.len()).completions());
        if self.options.token_ids {
            let prompt = answers.first().map(|answer| answer.prompt_ids.as_slice());
            body.insert("prompt_token_ids".to_owned(), prompt.unwrap_or_default().into());
        }
        body.into()
    }

    fn close(&mut self, answers: &[Answer], body: &Value, out: &mut Sse) {
        for (index, answer) in answers.iter().enumerate() {
            out.data(&self.chunk(index, json!({}), Some(finish_reason(answer))));
        }
        // Apart from the last choice: AutoGen loses a finish reason that comes with usage.
        if self.options.include_usage {
            let mut chunk = self.head("chat.completion.chunk");
            chunk.insert("choices".to_owned(), json!([]));
            chunk.insert("usage".to_owned(), body["usage"].clone());
            out.data(&chunk);
        }
        out.done();
    }

    fn failed(&mut self, error: &ApiError, out: &mut Sse) {
        out.data(&error.body(Shape::OpenAi));
        out.done();
    }
}

/// With calls the reason is the calls, even where the limit cut the text after them: an agent
/// that is told `length` gives up, and these calls are complete.
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

/// Arguments as clients parse them. What is no JSON goes back as it was written.
pub(in crate::protocol) fn argument_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
