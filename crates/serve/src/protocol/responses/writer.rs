//! A response, whole or as a sequence of numbered events.
//!
//! The text of a turn is one output item and each of its calls another. In a stream the text item
//! stays open until the end, as the model may write more text after a call; the items are in the
//! order in which they began.

use leyden_core::{FinishReason, ToolCall};
use serde_json::{Map, Value, json};

use crate::backend::{Answer, Token};
use crate::call::Written;
use crate::protocol::chat::argument_text;
use crate::protocol::error::ApiError;
use crate::protocol::ids;
use crate::protocol::logprobs::{self, TokenText};
use crate::protocol::options::now;
use crate::protocol::plan::{Memory, Writer};
use crate::protocol::sse::Sse;
use crate::protocol::usage::Usage;

/// Response options set by the request.
pub(super) struct Options {
    pub id: String,
    /// The fields that are known before generation.
    pub head: Map<String, Value>,
    /// `None` if log-probabilities are not reported.
    pub logprobs: Option<TokenText>,
    pub token_ids: bool,
    pub truncated_as_completed: bool,
    /// All items before the response, if they are to be stored.
    pub conversation: Option<Vec<Value>>,
}

pub(super) struct ResponseWriter {
    options: Options,
    sequence: u64,
    items: Vec<Item>,
    /// Whether the text item has been announced in the stream.
    text_announced: bool,
    /// Tokens held back until the next text delta.
    tokens: Vec<Token>,
    finished: Value,
}

enum Item {
    Text { id: String, text: String },
    Call { id: String, call: ToolCall },
}

impl ResponseWriter {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            sequence: 0,
            items: Vec::new(),
            text_announced: false,
            tokens: Vec::new(),
            finished: Value::Null,
        }
    }

    /// Whether the response is reported as truncated. It is not if it has complete calls, even if
    /// text after them was truncated.
    fn is_cut(&self, answer: &Answer) -> bool {
        answer.finish == FinishReason::Length
            && answer.tool_calls.is_empty()
            && !self.options.truncated_as_completed
    }

    fn event(&mut self, kind: &str, mut data: Value, out: &mut Sse) {
        data["type"] = kind.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.event(kind, &data);
    }

    /// The response before it is complete.
    fn unfinished(&self, status: &str, error: Value) -> Value {
        let mut body = self.options.head.clone();
        for (name, value) in [
            ("status", status.into()),
            ("error", error),
            ("incomplete_details", Value::Null),
            ("output", json!([])),
            ("usage", Value::Null),
        ] {
            body.insert(name.to_owned(), value);
        }
        body.into()
    }

    /// Log-probabilities as clients require them: a list, which may be empty.
    fn entries(&self, tokens: &[Token]) -> Vec<Value> {
        self.options.logprobs.map(|text| text.entries(tokens)).unwrap_or_default()
    }

    fn part(&self, text: &str, tokens: &[Token]) -> Value {
        let logprobs = self.entries(tokens);
        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
    }

    /// An item in its final form.
    fn item(&self, item: &Item, answer: &Answer) -> Value {
        match item {
            Item::Text { id, text } => json!({
                "id": id,
                "type": "message",
                "role": "assistant",
                "status": if self.is_cut(answer) { "incomplete" } else { "completed" },
                "content": [self.part(text, &answer.tokens)],
            }),
            Item::Call { id, call } => call_item(id, call, &argument_text(&call.arguments), true),
        }
    }

    /// The index of the text item, creating it if needed.
    fn text_index(&mut self, out: &mut Sse) -> usize {
        let is_text = |item: &Item| matches!(item, Item::Text { .. });
        if let Some(index) = self.items.iter().position(is_text) {
            return index;
        }
        let (index, id) = (self.items.len(), ids::fresh("msg_"));
        self.announce_text(index, &id, out);
        self.items.push(Item::Text { id, text: String::new() });
        index
    }

    fn announce_text(&mut self, index: usize, id: &str, out: &mut Sse) {
        self.text_announced = true;
        let item = json!({
            "id": id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        });
        let added = json!({"output_index": index, "item": item});
        self.event("response.output_item.added", added, out);
        let part = json!({"item_id": id, "output_index": index, "content_index": 0,
                          "part": self.part("", &[])});
        self.event("response.content_part.added", part, out);
    }

    /// The items of a non-streamed answer: text, then calls. There is always at least one.
    fn lay_out(&mut self, answer: &Answer) {
        if !answer.content.is_empty() || answer.tool_calls.is_empty() {
            let text = answer.content.clone();
            self.items.push(Item::Text { id: ids::fresh("msg_"), text });
        }
        let call = |call: &ToolCall| Item::Call { id: ids::fresh("fc_"), call: call.clone() };
        self.items.extend(answer.tool_calls.iter().map(call));
    }

    fn end_text(&mut self, index: usize, item: &Value, out: &mut Sse) {
        let (id, part) = (&item["id"], &item["content"][0]);
        let at = || json!({"item_id": id, "output_index": index, "content_index": 0});
        let mut done = at();
        done["text"] = part["text"].clone();
        done["logprobs"] = part["logprobs"].clone();
        self.event("response.output_text.done", done, out);
        let mut done = at();
        done["part"] = part.clone();
        self.event("response.content_part.done", done, out);
        let done = json!({"output_index": index, "item": item});
        self.event("response.output_item.done", done, out);
    }
}

impl Writer for ResponseWriter {
    fn begun(&mut self, _: usize, _: &[u32], _: u64, out: &mut Sse) {
        for kind in ["response.created", "response.in_progress"] {
            let response = self.unfinished("in_progress", Value::Null);
            self.event(kind, json!({ "response": response }), out);
        }
    }

    fn text(&mut self, _: usize, delta: &str, tokens: Vec<Token>, out: &mut Sse) {
        self.tokens.extend(tokens);
        if delta.is_empty() {
            return;
        }
        let index = self.text_index(out);
        let tokens = std::mem::take(&mut self.tokens);
        let Item::Text { id, text } = &mut self.items[index] else { return };
        text.push_str(delta);
        let mut data = json!({"item_id": id, "output_index": index, "content_index": 0,
                              "delta": delta});
        data["logprobs"] = self.entries(&tokens).into();
        self.event("response.output_text.delta", data, out);
    }

    fn call(&mut self, _: usize, call: &ToolCall, tokens: Vec<Token>, out: &mut Sse) {
        self.tokens.extend(tokens);
        let (index, id) = (self.items.len(), ids::fresh("fc_"));
        let arguments = argument_text(&call.arguments);
        let item = call_item(&id, call, "", false);
        let added = json!({"output_index": index, "item": item});
        self.event("response.output_item.added", added, out);
        let delta = json!({"item_id": id, "output_index": index, "delta": arguments});
        self.event("response.function_call_arguments.delta", delta, out);
        let done = json!({"item_id": id, "output_index": index, "name": call.name,
                          "arguments": arguments});
        self.event("response.function_call_arguments.done", done, out);
        let item = call_item(&id, call, &arguments, true);
        let done = json!({"output_index": index, "item": item});
        self.event("response.output_item.done", done, out);
        self.items.push(Item::Call { id, call: call.clone() });
    }

    fn whole(&mut self, answers: &[Answer]) -> Written {
        let Some(answer) = answers.first() else { return Value::Null.into() };
        if self.items.is_empty() {
            self.lay_out(answer);
        }
        let output: Vec<Value> = self.items.iter().map(|item| self.item(item, answer)).collect();
        let cut = self.is_cut(answer);
        let mut body = self.unfinished(if cut { "incomplete" } else { "completed" }, Value::Null);
        if cut {
            body["incomplete_details"] = json!({"reason": "max_output_tokens"});
        } else {
            body["completed_at"] = now().into();
        }
        body["output"] = output.into();
        body["usage"] = usage(answers);
        if self.options.token_ids {
            body["prompt_token_ids"] = answer.prompt_ids.as_slice().into();
            body["token_ids"] = logprobs::ids(&answer.tokens).into();
        }
        self.finished = body.clone();
        body.into()
    }

    fn close(&mut self, _: &[Answer], _: &Written, out: &mut Sse) {
        let body = self.finished.clone();
        let output = body["output"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, item) in output.iter().enumerate() {
            if item["type"] == "message" {
                // The item of an empty answer is announced only now.
                if !self.text_announced {
                    self.announce_text(index, item["id"].as_str().unwrap_or_default(), out);
                }
                self.end_text(index, item, out);
            }
        }
        let kind = match body["status"].as_str() {
            Some("incomplete") => "response.incomplete",
            _ => "response.completed",
        };
        self.event(kind, json!({ "response": body }), out);
    }

    fn failed(&mut self, error: &ApiError, out: &mut Sse) {
        let code = error.code.unwrap_or("server_error");
        let response = self.unfinished("failed", json!({"code": code, "message": error.message}));
        self.event("response.failed", json!({ "response": response }), out);
    }

    fn memory(&self) -> Option<Memory> {
        let mut items = self.options.conversation.clone()?;
        items.extend(self.finished["output"].as_array()?.iter().cloned());
        Some(Memory { id: self.options.id.clone(), items })
    }
}

fn call_item(id: &str, call: &ToolCall, arguments: &str, done: bool) -> Value {
    json!({
        "id": id,
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
        "status": if done { "completed" } else { "in_progress" },
    })
}

fn usage(answers: &[Answer]) -> Value {
    let usage = Usage::of(answers, 1);
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    })
}
