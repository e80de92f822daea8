//! Converts an [`Ask`] to a model server's request body.

use leyden_core::{ChatRequest, Message, ResponseFormat, ToolChoice};
use serde_json::{Map, Value, json};

use crate::backend::{Ask, Prompt};

/// The path below the server's root, and the body.
pub(super) fn request(model: &str, ask: &Ask) -> (&'static str, Value) {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    let path = match &ask.prompt {
        Prompt::Chat(chat) => {
            conversation(&mut body, chat);
            body.insert("logprobs".into(), true.into());
            if ask.top_logprobs > 0 {
                body.insert("top_logprobs".into(), ask.top_logprobs.into());
            }
            "chat/completions"
        }
        Prompt::Text(text) => {
            body.insert("prompt".into(), text.clone().into());
            body.insert("logprobs".into(), ask.top_logprobs.max(1).into());
            "completions"
        }
        Prompt::Ids(ids) => {
            body.insert("prompt".into(), ids.clone().into());
            body.insert("logprobs".into(), ask.top_logprobs.max(1).into());
            "completions"
        }
    };
    sampling(&mut body, ask);
    (path, Value::Object(body))
}

fn sampling(body: &mut Map<String, Value>, ask: &Ask) {
    let sampling = &ask.sampling;
    body.insert("temperature".into(), sampling.temperature.into());
    body.insert("top_p".into(), sampling.top_p.into());
    if sampling.top_k > 0 {
        body.insert("top_k".into(), sampling.top_k.into());
    }
    // Without a limit the server uses the rest of its context.
    if sampling.max_tokens < usize::MAX {
        body.insert("max_tokens".into(), sampling.max_tokens.into());
    }
    if !ask.stop.is_empty() {
        body.insert("stop".into(), json!(ask.stop));
    }
    if let Some(seed) = ask.seed {
        body.insert("seed".into(), seed.into());
    }
    if ask.ignore_eos {
        body.insert("ignore_eos".into(), true.into());
    }
    body.insert("return_token_ids".into(), true.into());
}

fn conversation(body: &mut Map<String, Value>, chat: &ChatRequest) {
    body.insert("messages".into(), chat.messages.iter().map(message).collect());
    if !chat.tools.is_empty() {
        let tool = |tool: &leyden_core::ToolSpec| {
            json!({"type": "function", "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }})
        };
        body.insert("tools".into(), chat.tools.iter().map(tool).collect());
        let choice = match &chat.tool_choice {
            ToolChoice::Auto => json!("auto"),
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
        };
        body.insert("tool_choice".into(), choice);
    }
    match &chat.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => {
            body.insert("response_format".into(), json!({"type": "json_object"}));
        }
        ResponseFormat::JsonSchema(schema) => {
            let named = json!({"name": "response", "schema": schema});
            let format = json!({"type": "json_schema", "json_schema": named});
            body.insert("response_format".into(), format);
        }
    }
}

fn message(message: &Message) -> Value {
    let mut body = Map::new();
    body.insert("role".into(), json!(message.role));
    body.insert("content".into(), message.content.clone().into());
    if !message.tool_calls.is_empty() {
        let call = |call: &leyden_core::ToolCall| {
            let arguments = match &call.arguments {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            json!({"id": call.id, "type": "function", "function": {
                "name": call.name,
                "arguments": arguments,
            }})
        };
        body.insert("tool_calls".into(), message.tool_calls.iter().map(call).collect());
    }
    if let Some(id) = &message.tool_call_id {
        body.insert("tool_call_id".into(), id.clone().into());
    }
    if let Some(name) = &message.name {
        body.insert("name".into(), name.clone().into());
    }
    Value::Object(body)
}
