//! Converts conversation items to messages.
//!
//! A model turn is one message here but several items for a client: a text and each of its calls.
//! They are merged again, so that the prompt matches what the model saw.

use std::collections::HashMap;

use leyden_core::{Message, Speaker, ToolCall};
use serde_json::Value;

use crate::protocol::chat::{Content, arguments};
use crate::protocol::error::ApiError;
use crate::protocol::fields::{Fields, wrong};
use crate::protocol::neutral::{empty, never};

/// A conversation so far.
#[derive(Default)]
pub(super) struct Conversation {
    pub messages: Vec<Message>,
    /// Names of the tools called, by call id.
    called: HashMap<String, String>,
}

impl Conversation {
    /// Adds `items`, located at `path`.
    pub fn read(&mut self, items: &[Value], path: &str) -> Result<(), ApiError> {
        let mut numbered = items.iter().enumerate();
        numbered.try_for_each(|(i, item)| self.one(Fields::at(item, format!("{path}[{i}]"))?))
    }

    fn one(&mut self, mut item: Fields) -> Result<(), ApiError> {
        // Set by responses on their items.
        item.skip(&["id", "status"]);
        match item.text("type")?.unwrap_or("message") {
            "message" => self.message(&mut item)?,
            "function_call" => self.call(&mut item)?,
            "function_call_output" => self.output(&mut item)?,
            // Left by models with hidden reasoning; empty ones have no content.
            "reasoning" => {
                let why = "reasoning of another model cannot be shown to this one";
                item.neutral("summary", empty, why)?;
                item.neutral("content", empty, why)?;
                item.neutral("encrypted_content", never, why)?;
            }
            other => {
                let known = "messages, function calls and their outputs are supported";
                return Err(item.error("type", format_args!("is {other:?}, but only {known}")));
            }
        }
        item.finish()
    }

    fn message(&mut self, item: &mut Fields) -> Result<(), ApiError> {
        let role = item.needed_text("role")?;
        let content = Content::read(item)?.needed(item)?;
        item.skip(&["phase"]);
        let message = match role {
            "user" => Message::user(content),
            "system" | "developer" => Message::system(content),
            "assistant" => match self.messages.last_mut() {
                Some(last) if is_turn_without_text(last) => {
                    last.content = content;
                    return Ok(());
                }
                _ => Message::assistant(content),
            },
            _ => {
                let known = "must be user, assistant, system or developer";
                return Err(item.error("role", format_args!("{known}, not {role:?}")));
            }
        };
        self.messages.push(message);
        Ok(())
    }

    fn call(&mut self, item: &mut Fields) -> Result<(), ApiError> {
        let call = ToolCall {
            id: item.needed_text("call_id")?.to_owned(),
            name: item.needed_text("name")?.to_owned(),
            arguments: arguments(item.needed_text("arguments")?),
        };
        self.called.insert(call.id.clone(), call.name.clone());
        match self.messages.last_mut() {
            Some(last) if last.role == Speaker::Assistant => last.tool_calls.push(call),
            _ => {
                let tool_calls = vec![call];
                self.messages.push(Message { tool_calls, ..Message::assistant("") });
            }
        }
        Ok(())
    }

    fn output(&mut self, item: &mut Fields) -> Result<(), ApiError> {
        let id = item.needed_text("call_id")?;
        let path = item.path("output");
        let content = match item.value("output") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => Content::join(parts, &path)?,
            None => return Err(item.error("output", "is missing")),
            Some(other) => return Err(wrong(path, "a text or a list of parts", other)),
        };
        item.skip(&["name"]);
        let Some(name) = self.called.get(id) else {
            let problem = "refers to a call that no earlier item contains";
            return Err(item.error("call_id", format_args!("{problem}: {id:?}")));
        };
        let call = ToolCall { id: id.to_owned(), name: name.clone(), arguments: Value::Null };
        self.messages.push(Message::tool(&call, content));
        Ok(())
    }
}

/// Whether a following text belongs to the same turn.
fn is_turn_without_text(message: &Message) -> bool {
    message.role == Speaker::Assistant
        && message.content.is_empty()
        && !message.tool_calls.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(items: Value) -> Result<Vec<Message>, ApiError> {
        let mut conversation = Conversation::default();
        conversation.read(items.as_array().unwrap(), "input")?;
        Ok(conversation.messages)
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
