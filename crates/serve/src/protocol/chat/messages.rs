//! Converts chat completion messages to conversation messages.

use std::collections::HashMap;

use leyden_core::{Message, ToolCall};
use serde_json::Value;

use crate::protocol::error::ApiError;
use crate::protocol::fields::{Fields, wrong};

/// Names of the tools called so far, by call id.
type Called = HashMap<String, String>;

/// Reads `messages`.
pub(super) fn read(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let values = fields.list("messages")?.unwrap_or_default();
    if values.is_empty() {
        return Err(fields.error("messages", "is missing or empty"));
    }
    let mut called = Called::new();
    let read = |(i, value): (usize, &Value)| {
        message(Fields::at(value, format!("messages[{i}]"))?, &mut called)
    };
    values.iter().enumerate().map(read).collect()
}

fn message(mut fields: Fields, called: &mut Called) -> Result<Message, ApiError> {
    let role = fields.needed_text("role")?;
    let message = match role {
        // The name of the system role for o-series models.
        "system" | "developer" => Message::system(Content::read(&mut fields)?.needed(&fields)?),
        "user" => Message::user(Content::read(&mut fields)?.needed(&fields)?),
        "assistant" => assistant(&mut fields, called)?,
        "tool" => answer(&mut fields, called)?,
        _ => {
            let known = "must be system, developer, user, assistant or tool";
            return Err(fields.error("role", format_args!("{known}, not {role:?}")));
        }
    };
    // The name of a participant, which none of our templates uses.
    fields.skip(&["name"]);
    fields.finish()?;
    Ok(message)
}

fn assistant(fields: &mut Fields, called: &mut Called) -> Result<Message, ApiError> {
    let content = Content::read(fields)?;
    let refusal = fields.text("refusal")?;
    let content = content.0.or_else(|| refusal.map(str::to_owned)).unwrap_or_default();
    let path = fields.path("tool_calls");
    let calls = fields.list("tool_calls")?.unwrap_or_default().iter().enumerate();
    let tool_calls = calls
        .map(|(i, value)| call(Fields::at(value, format!("{path}[{i}]"))?))
        .collect::<Result<Vec<ToolCall>, ApiError>>()?;
    called.extend(tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
    fields.neutral("audio", |_| false, "the model reads text only")?;
    fields.neutral("function_call", |_| false, "use `tool_calls`")?;
    // Fields that clients keep from our responses or from other models'.
    fields.skip(&["annotations", "parsed", "reasoning_content", "reasoning"]);
    Ok(Message { tool_calls, ..Message::assistant(content) })
}

fn call(mut fields: Fields) -> Result<ToolCall, ApiError> {
    fields.neutral("type", |kind| kind == "function", "only functions can be called")?;
    let id = fields.needed_text("id")?.to_owned();
    let Some(mut function) = fields.object("function")? else {
        return Err(fields.error("function", "is missing"));
    };
    let name = function.needed_text("name")?.to_owned();
    let arguments = arguments(function.needed_text("arguments")?);
    function.skip(&["parsed_arguments"]);
    function.finish()?;
    // Present in calls assembled from a stream.
    fields.skip(&["index"]);
    fields.finish()?;
    Ok(ToolCall { id, name, arguments })
}

/// Arguments that a client sends back: JSON in a string. A model may have generated invalid JSON,
/// and must then see exactly what it wrote.
pub(in crate::protocol) fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// A tool's result; the templates need the tool's name.
fn answer(fields: &mut Fields, called: &Called) -> Result<Message, ApiError> {
    let content = Content::read(fields)?.needed(fields)?;
    let id = fields.needed_text("tool_call_id")?;
    let name = match called.get(id) {
        Some(name) => name.as_str(),
        None => fields.text("name")?.ok_or_else(|| {
            let problem = "refers to a call that no earlier message contains";
            fields.error("tool_call_id", format_args!("{problem}: {id:?}"))
        })?,
    };
    let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: Value::Null };
    Ok(Message::tool(&call, content))
}

/// The text of a message; `None` if it has none.
pub(in crate::protocol) struct Content(pub Option<String>);

impl Content {
    /// `content`: a string, or parts of text, which are joined by line breaks.
    pub fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let path = fields.path("content");
        let text = match fields.value("content") {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Array(parts)) => Some(Self::join(parts, &path)?),
            Some(other) => return Err(wrong(path, "a string or a list of parts", other)),
        };
        Ok(Self(text))
    }

    pub fn needed(self, fields: &Fields) -> Result<String, ApiError> {
        self.0.ok_or_else(|| fields.error("content", "is missing"))
    }

    /// Joins text parts at `path`; images, audio and files are rejected.
    pub fn join(parts: &[Value], path: &str) -> Result<String, ApiError> {
        let mut texts = Vec::with_capacity(parts.len());
        for (i, part) in parts.iter().enumerate() {
            let mut part = Fields::at(part, format!("{path}[{i}]"))?;
            let text = match part.needed_text("type")? {
                "text" | "input_text" | "output_text" => part.needed_text("text")?,
                "refusal" => part.needed_text("refusal")?,
                other => {
                    let unsupported = "is not supported: the model reads text only";
                    return Err(
                        part.error("type", format_args!("is {other:?}, which {unsupported}"))
                    );
                }
            };
            part.skip(&["annotations", "logprobs", "cache_control", "prompt_cache_breakpoint"]);
            part.finish()?;
            texts.push(text);
        }
        Ok(texts.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use leyden_core::Speaker;
    use serde_json::json;

    use super::*;

    fn messages(value: Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({ "messages": value });
        read(&mut Fields::root(body.as_object().unwrap()))
    }

    #[test]
    fn a_tool_message_gets_the_name_of_the_tool_that_was_called() {
        let read = messages(json!([
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "2 + 3?", "name": "ada"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 2}"}},
                {"id": "c2", "type": "function", "function": {"name": "sub", "arguments": "not json"}},
            ]},
            {"role": "tool", "tool_call_id": "c2", "content": "5"},
        ]))
        .unwrap();
        assert_eq!(read[0], Message::system("Be\nbrief."));
        assert_eq!(read[1], Message::user("2 + 3?"));
        assert_eq!(read[2].role, Speaker::Assistant);
        assert_eq!(read[2].content, "");
        assert_eq!(read[2].tool_calls[0].arguments, json!({"a": 2}));
        assert_eq!(read[2].tool_calls[1].arguments, json!("not json"));
        assert_eq!(read[3].name.as_deref(), Some("sub"));
        assert_eq!(read[3].tool_call_id.as_deref(), Some("c2"));
    }

    #[test]
    fn unsupported_content_is_refused_by_name() {
        let part = json!({"type": "image_url", "image_url": {"url": "data:"}});
        let cases = [
            (json!([]), "messages"),
            (json!([7]), "messages[0]"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "king", "content": ""}]), "messages[0].role"),
            (json!([{"role": "user", "content": [part]}]), "messages[0].content[0].type"),
            (json!([{"role": "user", "content": "", "mood": 1}]), "messages[0].mood"),
            (
                json!([{"role": "tool", "tool_call_id": "x", "content": ""}]),
                "messages[0].tool_call_id",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {}}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ];
        for (value, param) in cases {
            let error = messages(value.clone()).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{value}");
        }
    }
}
