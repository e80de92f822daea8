//! Converts Anthropic's messages, which are lists of blocks, to ours.
//!
//! In Anthropic's format a tool result is a block of a user message; here it is a separate
//! message. So one of their messages becomes several, in block order.

use std::collections::HashMap;

use leyden_core::{Message, ToolCall};
use serde_json::Value;

use crate::protocol::error::ApiError;
use crate::protocol::fields::{Fields, wrong};
use crate::protocol::neutral::empty;

/// `system`: a string or text blocks.
pub(super) fn system(fields: &mut Fields) -> Result<Option<Message>, ApiError> {
    let path = fields.path("system");
    match fields.value("system") {
        None => Ok(None),
        Some(value) => Ok(Some(Message::system(texts(value, path)?))),
    }
}

/// Reads `messages`.
pub(super) fn read(fields: &mut Fields, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let values = fields.list("messages")?.unwrap_or_default();
    if values.is_empty() {
        return Err(fields.error("messages", "is missing or empty"));
    }
    let mut names = HashMap::new();
    for (i, value) in values.iter().enumerate() {
        let mut message = Fields::at(value, format!("messages[{i}]"))?;
        let path = message.path("content");
        let Some(content) = message.value("content") else {
            return Err(message.error("content", "is missing"));
        };
        match message.needed_text("role")? {
            "user" => user(content, path, &names, messages)?,
            "system" => messages.push(Message::system(texts(content, path)?)),
            "assistant" if i + 1 == values.len() => {
                let why = "cannot be \"assistant\" in the last message: a response that has \
                           begun is not continued";
                return Err(message.error("role", why));
            }
            "assistant" => {
                let turn = assistant(content, path)?;
                let named = turn.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone()));
                names.extend(named);
                messages.push(turn);
            }
            other => {
                let known = "must be user or assistant";
                return Err(message.error("role", format_args!("{known}, not {other:?}")));
            }
        }
        message.finish()?;
    }
    Ok(())
}

/// Each tool result becomes a message; consecutive text blocks become one.
fn user(
    content: &Value,
    path: String,
    names: &HashMap<String, String>,
    messages: &mut Vec<Message>,
) -> Result<(), ApiError> {
    let Value::Array(blocks) = content else {
        messages.push(Message::user(texts(content, path)?));
        return Ok(());
    };
    let mut text: Vec<String> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let mut block = Fields::at(block, format!("{path}[{i}]"))?;
        match block.needed_text("type")? {
            "text" => text.push(text_block(block)?),
            "tool_result" => {
                if !text.is_empty() {
                    messages.push(Message::user(std::mem::take(&mut text).join("\n")));
                }
                messages.push(result(&mut block, names)?);
                block.finish()?;
            }
            other => return Err(unreadable(&block, other)),
        }
    }
    if !text.is_empty() || blocks.is_empty() {
        messages.push(Message::user(text.join("\n")));
    }
    Ok(())
}

/// `is_error` is ignored: the model only sees the result's text.
fn result(block: &mut Fields, names: &HashMap<String, String>) -> Result<Message, ApiError> {
    let id = block.needed_text("tool_use_id")?;
    let Some(name) = names.get(id) else {
        let problem = "refers to a call that no earlier message contains";
        return Err(block.error("tool_use_id", format_args!("{problem}: {id:?}")));
    };
    let path = block.path("content");
    let content = match block.value("content") {
        None => String::new(),
        Some(value) => texts(value, path)?,
    };
    block.flag("is_error")?;
    block.skip(&["cache_control"]);
    let call = ToolCall { id: id.to_owned(), name: name.clone(), arguments: Value::Null };
    Ok(Message::tool(&call, content))
}

fn assistant(content: &Value, path: String) -> Result<Message, ApiError> {
    let Value::Array(blocks) = content else {
        return Ok(Message::assistant(texts(content, path)?));
    };
    let (mut text, mut tool_calls) = (String::new(), Vec::new());
    for (i, block) in blocks.iter().enumerate() {
        let mut block = Fields::at(block, format!("{path}[{i}]"))?;
        match block.needed_text("type")? {
            // Text blocks of one turn are parts of one text, interrupted by calls.
            "text" => text.push_str(&text_block(block)?),
            "tool_use" => tool_calls.push(tool_use(&mut block)?),
            "thinking" | "redacted_thinking" => {
                let why = "reasoning of another model cannot be shown to this one";
                block.skip(&["signature"]);
                block.neutral("thinking", empty, why)?;
                block.neutral("data", empty, why)?;
                block.finish()?;
            }
            other => return Err(unreadable(&block, other)),
        }
    }
    Ok(Message { tool_calls, ..Message::assistant(text) })
}

fn tool_use(block: &mut Fields) -> Result<ToolCall, ApiError> {
    let call = ToolCall {
        id: block.needed_text("id")?.to_owned(),
        name: block.needed_text("name")?.to_owned(),
        arguments: block
            .value("input")
            .cloned()
            .unwrap_or_else(|| Value::Object(Default::default())),
    };
    block.skip(&["cache_control", "caller"]);
    block.finish()?;
    Ok(call)
}

fn text_block(mut block: Fields) -> Result<String, ApiError> {
    let text = block.needed_text("text")?.to_owned();
    block.skip(&["cache_control"]);
    block.neutral("citations", empty, "citations are not read")?;
    block.finish()?;
    Ok(text)
}

/// A string, or text blocks joined by line breaks.
fn texts(value: &Value, path: String) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let text = |(i, block): (usize, &Value)| {
                let mut block = Fields::at(block, format!("{path}[{i}]"))?;
                match block.needed_text("type")? {
                    "text" => text_block(block),
                    other => Err(unreadable(&block, other)),
                }
            };
            let texts: Result<Vec<String>, ApiError> =
                blocks.iter().enumerate().map(text).collect();
            Ok(texts?.join("\n"))
        }
        other => Err(wrong(path, "a text or a list of blocks", other)),
    }
}

fn unreadable(block: &Fields, kind: &str) -> ApiError {
    let unsupported = "is not supported: the model reads text, tool calls and tool results";
    block.error("type", format_args!("is {kind:?}, which {unsupported}"))
}
