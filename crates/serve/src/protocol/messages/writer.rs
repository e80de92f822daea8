//! The response of `/v1/messages`, whole or as events.
//!
//! Blocks are sequential: each ends before the next begins.

use leyden_core::{FinishReason, ToolCall};
use serde_json::{Map, Value, json};

use crate::backend::{Answer, Token};
use crate::call::Written;
use crate::protocol::error::{ApiError, Shape};
use crate::protocol::logprobs;
use crate::protocol::plan::Writer;
use crate::protocol::sse::Sse;
use crate::protocol::usage::Usage;

pub(super) struct MessageWriter {
    id: String,
    model: String,
    token_ids: bool,
    blocks: Vec<Value>,
    /// The text of the open block, which is the last.
    open: Option<String>,
    finished: Value,
}

impl MessageWriter {
    pub fn new(id: String, model: String, token_ids: bool) -> Self {
        Self { id, model, token_ids, blocks: Vec::new(), open: None, finished: Value::Null }
    }

    fn body(&self, content: Vec<Value>, usage: Value) -> Map<String, Value> {
        Map::from_iter([
            ("id".to_owned(), self.id.as_str().into()),
            ("type".to_owned(), "message".into()),
            ("role".to_owned(), "assistant".into()),
            ("model".to_owned(), self.model.as_str().into()),
            ("content".to_owned(), content.into()),
            ("stop_reason".to_owned(), Value::Null),
            ("stop_sequence".to_owned(), Value::Null),
            ("usage".to_owned(), usage),
        ])
    }

    fn start_block(&self, block: &Value, out: &mut Sse) {
        let index = self.blocks.len();
        event("content_block_start", json!({"index": index, "content_block": block}), out);
    }

    fn delta(&self, delta: Value, out: &mut Sse) {
        let index = self.blocks.len();
        event("content_block_delta", json!({"index": index, "delta": delta}), out);
    }

    fn end_block(&mut self, block: Value, out: &mut Sse) {
        event("content_block_stop", json!({"index": self.blocks.len()}), out);
        self.blocks.push(block);
    }

    fn end_text(&mut self, out: &mut Sse) {
        if let Some(text) = self.open.take() {
            self.end_block(text_block(&text), out);
        }
    }

    /// The blocks of a non-streamed answer: text, then calls.
    fn lay_out(answer: &Answer) -> Vec<Value> {
        let text = Some(&answer.content).filter(|text| !text.is_empty());
        let calls = answer.tool_calls.iter().map(|call| tool_use(call, call.arguments.clone()));
        text.map(|text| text_block(text)).into_iter().chain(calls).collect()
    }
}

impl Writer for MessageWriter {
    fn begun(&mut self, _: usize, prompt_ids: &[u32], _: u64, out: &mut Sse) {
        let usage = Usage { prompt: prompt_ids.len(), ..Usage::default() };
        let message = self.body(Vec::new(), counts(usage));
        event("message_start", json!({ "message": message }), out);
        event("ping", json!({}), out);
    }

    fn text(&mut self, _: usize, delta: &str, _: Vec<Token>, out: &mut Sse) {
        if delta.is_empty() {
            return;
        }
        if self.open.is_none() {
            self.start_block(&text_block(""), out);
        }
        self.open.get_or_insert_default().push_str(delta);
        self.delta(json!({"type": "text_delta", "text": delta}), out);
    }

    fn call(&mut self, _: usize, call: &ToolCall, _: Vec<Token>, out: &mut Sse) {
        self.end_text(out);
        self.start_block(&tool_use(call, json!({})), out);
        let arguments = call.arguments.to_string();
        self.delta(json!({"type": "input_json_delta", "partial_json": arguments}), out);
        self.end_block(tool_use(call, call.arguments.clone()), out);
    }

    fn whole(&mut self, answers: &[Answer]) -> Written {
        let Some(answer) = answers.first() else { return Value::Null.into() };
        let mut content = self.blocks.clone();
        content.extend(self.open.as_deref().map(text_block));
        if content.is_empty() {
            content = Self::lay_out(answer);
        }
        let mut body = self.body(content, counts(Usage::of(answers, 1)));
        let (reason, sequence) = stop_reason(answer);
        body.insert("stop_reason".to_owned(), reason.into());
        body.insert("stop_sequence".to_owned(), sequence.into());
        if self.token_ids {
            body.insert("prompt_token_ids".to_owned(), answer.prompt_ids.as_slice().into());
            body.insert("token_ids".to_owned(), logprobs::ids(&answer.tokens).into());
        }
        self.finished = body.into();
        self.finished.clone().into()
    }

    fn close(&mut self, _: &[Answer], _: &Written, out: &mut Sse) {
        self.end_text(out);
        let body = &self.finished;
        let delta = json!({
            "stop_reason": body["stop_reason"],
            "stop_sequence": body["stop_sequence"],
        });
        event("message_delta", json!({"delta": delta, "usage": body["usage"]}), out);
        event("message_stop", json!({}), out);
    }

    fn failed(&mut self, error: &ApiError, out: &mut Sse) {
        out.event("error", &error.body(Shape::Anthropic));
    }

    fn keep_alive(&self, out: &mut Sse) {
        event("ping", json!({}), out);
    }
}

/// An event's type is also the first field of its data.
fn event(kind: &str, data: Value, out: &mut Sse) {
    let mut event = Map::from_iter([("type".to_owned(), kind.into())]);
    if let Value::Object(fields) = data {
        event.extend(fields);
    }
    out.event(kind, &event);
}

fn text_block(text: &str) -> Value {
    json!({"type": "text", "text": text, "citations": null})
}

fn tool_use(call: &ToolCall, input: Value) -> Value {
    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
}

fn stop_reason(answer: &Answer) -> (&'static str, Option<&str>) {
    match (answer.finish, answer.stop_text.as_deref()) {
        _ if !answer.tool_calls.is_empty() => ("tool_use", None),
        (FinishReason::Length, _) => ("max_tokens", None),
        (FinishReason::Stop, Some(text)) => ("stop_sequence", Some(text)),
        (FinishReason::Stop, None) => ("end_turn", None),
    }
}

/// Here cached tokens are counted separately from input tokens.
fn counts(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached,
        "output_tokens": usage.completion,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
    })
}
