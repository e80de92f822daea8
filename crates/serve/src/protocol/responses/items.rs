//! Items of a conversation to messages.
//!
//! A turn of the model is one message for us and several items for a client: a text and each
//! of its calls. They are put together again, so that the prompt is what the model saw.

use leyden_core::{Message, Speaker, ToolCall};
use serde_json::Value;

use crate::protocol::chat::{Content, arguments};
use crate::protocol::error::ApiError;
use crate::protocol::fields::{Fields, wrong};
use crate::protocol::neutral::{empty, never};

/// Reads `items`, which stand at `path`, and adds them to `messages`.
pub(super) fn read(
    items: &[Value],
    path: &str,
    messages: &mut Vec<Message>,
) -> Result<(), ApiError> {
    let mut numbered = items.iter().enumerate();
    numbered.try_for_each(|(i, item)| one(Fields::at(item, format!("{path}[{i}]"))?, messages))
}

fn one(mut item: Fields, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    // What a response says of its own items.
    item.skip(&["id", "status"]);
    match item.text("type")?.unwrap_or("message") {
        "message" => message(&mut item, messages)?,
        "function_call" => call(&mut item, messages)?,
        "function_call_output" => output(&mut item, messages)?,
        // A model that thinks in secret leaves these; empty ones say nothing.
        "reasoning" => {
            let why = "the thoughts of another model cannot be shown to this one";
            item.neutral("summary", empty, why)?;
            item.neutral("content", empty, why)?;
            item.neutral("encrypted_content", never, why)?;
        }
        other => {
            let known = "messages, function calls and their outputs can be read";
            return Err(item.error("type", format_args!("is {other:?}, but only {known}")));
        }
    }
    item.finish()
}

fn message(item: &mut Fields, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let role = item.needed_text("role")?;
    let content = Content::read(item)?.needed(item)?;
    item.skip(&["phase"]);
    match role {
        "user" => messages.push(Message::user(content)),
        "system" | "developer" => messages.push(Message::system(content)),
        "assistant" => match messages.last_mut() {
            Some(last) if is_turn_without_text(last) => last.content = content,
            _ => messages.push(Message::assistant(content)),
        },
        _ => {
            let known = "must be user, assistant, system or developer";
            return Err(item.error("role", format_args!("{known}, not {role:?}")));
        }
    }
    Ok(())
}

/// Whether a text that follows belongs to the same turn.
fn is_turn_without_text(message: &Message) -> bool {
    message.role == Speaker::Assistant
        && message.content.is_empty()
        && !message.tool_calls.is_empty()
}

fn call(item: &mut Fields, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let call = ToolCall {
        id: item.needed_text("call_id")?.to_owned(),
        name: item.needed_text("name")?.to_owned(),
        arguments: arguments(item.needed_text("arguments")?),
    };
    match messages.last_mut() {
        Some(last) if last.role == Speaker::Assistant => last.tool_calls.push(call),
        _ => messages.push(Message { tool_calls: vec![call], ..Message::assistant("") }),
    }
    Ok(())
}

fn output(item: &mut Fields, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let id = item.needed_text("call_id")?;
    let path = item.path("output");
    let content = match item.value("output") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => Content::join(parts, &path)?,
        None => return Err(item.error("output", "is missing")),
        Some(other) => return Err(wrong(path, "a text or a list of parts", other)),
    };
    item.skip(&["name"]);
    let made = messages.iter().rev().flat_map(|m| &m.tool_calls).find(|call| call.id == id);
    match made {
        Some(call) => {
            let message = Message::tool(call, content);
            messages.push(message);
            Ok(())
        }
        None => {
            let nobody = "answers a call that no item before it makes";
            Err(item.error("call_id", format_args!("{nobody}: {id:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(items: Value) -> Result<Vec<Message>, ApiError> {
        let mut messages = Vec::new();
        read(items.as_array().unwrap(), "input", &mut messages)?;
        Ok(messages)
    }

    #[test]
    fn the_items_of_one_turn_become_one_message() {
        let call = |id: &str| {
            json!({"type": "function_call", "id": "fc_1", "call_id": id, "name": "look",
                   "arguments": "{\"at\": 1}", "status": "completed"})
        };
        let read = messages(json!([
            {"role": "user", "content": "Go."},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Well", "annotations": [], "logprobs": []}]},
            call("a"),
            call("b"),
            {"type": "function_call_output", "call_id": "b", "output": "dark"},
            {"type": "function_call_output", "call_id": "a",
             "output": [{"type": "input_text", "text": "light"}]},
            call("c"),
            {"role": "assistant", "content": "later"},
        ]))
        .unwrap();
        let roles: Vec<Speaker> = read.iter().map(|m| m.role).collect();
        use Speaker::{Assistant, Tool, User};
        assert_eq!(roles, [User, Assistant, Tool, Tool, Assistant]);
        assert_eq!((read[1].content.as_str(), read[1].tool_calls.len()), ("Well", 2));
        assert_eq!(read[1].tool_calls[1].arguments, json!({"at": 1}));
        assert_eq!(read[2].tool_call_id.as_deref(), Some("b"));
        assert_eq!((read[3].content.as_str(), read[3].name.as_deref()), ("light", Some("look")));
        assert_eq!((read[4].content.as_str(), read[4].tool_calls.len()), ("later", 1));
    }

    #[test]
    fn items_of_other_services_are_refused_by_name() {
        let cases = [
            (json!([{"type": "web_search_call"}]), "input[0].type"),
            (json!([{"type": "item_reference", "id": "x"}]), "input[0].type"),
            (
                json!([{"role": "user", "content": [{"type": "input_image"}]}]),
                "input[0].content[0].type",
            ),
            (
                json!([{"type": "reasoning", "summary": [{"type": "summary_text"}]}]),
                "input[0].summary",
            ),
            (
                json!([{"type": "function_call_output", "call_id": "x", "output": ""}]),
                "input[0].call_id",
            ),
        ];
        for (items, param) in cases {
            let error = messages(items.clone()).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{items}");
        }
        assert_eq!(messages(json!([{"type": "reasoning", "id": "r", "summary": []}])), Ok(vec![]));
    }
}
