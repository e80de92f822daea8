//! OpenAI's `/v1/responses`, used by the OpenAI Agents SDK.
//!
//! A conversation is a list of items (messages, calls, call outputs), which a client sends whole
//! or continues by `previous_response_id`. Built-in tools, stored prompts and background work are
//! OpenAI services and are rejected by name.

mod items;
mod writer;

use leyden_core::{ChatRequest, Message};
use serde_json::{Map, Value, json};

use self::items::Conversation;
use self::writer::ResponseWriter;
use super::error::ApiError;
use super::fields::{Fields, texts, wrong};
use super::logprobs::TokenText;
use super::options::{self, MOST_ALTERNATIVES, Model};
use super::plan::Plan;
use super::tools::{self, Spelling, Tools};
use super::{ids, neutral};
use crate::backend::{Ask, Prompt};
use crate::call::CallContext;

/// Accepted values of `include`. All but log-probabilities concern items that never occur here.
const INCLUDABLE: &[&str] = &[
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];
const LOGPROBS: &str = "message.output_text.logprobs";

pub(super) async fn read(
    body: &Map<String, Value>,
    context: &CallContext,
) -> Result<Plan, ApiError> {
    let fields = &mut Fields::root(body);
    let overrides = &context.overrides;
    let model = Model::read(fields, context)?;
    let previous = fields.text("previous_response_id")?;
    let mut items = match previous {
        None => Vec::new(),
        Some(id) => recalled(id, context).await?,
    };
    let input = input(fields)?;
    let mut conversation = Conversation::default();
    // Instructions apply to one response only.
    conversation.messages.extend(fields.text("instructions")?.map(Message::system));
    conversation.read(&items, "previous_response_id")?;
    conversation.read(&input, "input")?;
    items.extend(input);
    let tools = Tools::read(fields, Spelling::Flat)?;
    let response_format = text_format(fields)?;
    let limit = model.limit(fields.whole("max_output_tokens", 1..=u64::MAX)?, overrides);
    let sampling = options::sampling(fields, overrides, limit)?;
    let stop = options::stop(fields, "stop")?;
    let top_logprobs = fields.whole("top_logprobs", 0..=MOST_ALTERNATIVES)?.unwrap_or(0) as usize;
    let logprobs = includes_logprobs(fields)? || top_logprobs > 0 || overrides.logprobs;
    let token_ids = fields.flag("return_token_ids")?.unwrap_or(false) || overrides.token_ids;
    let stream = fields.flag("stream")?.unwrap_or(false);
    options::include_usage(fields)?;
    let store = fields.flag("store")?.unwrap_or(true);
    // Limits for built-in tools, of which there are none; hints to reasoning models.
    fields.skip(&["max_tool_calls", "reasoning"]);
    let ask = Ask {
        prompt: Prompt::Chat(ChatRequest {
            agent_role: context.role.clone().unwrap_or_default(),
            messages: conversation.messages,
            tools: tools.specs,
            stop: stop.clone(),
            tool_choice: tools.choice,
            response_format,
            single_call: tools.single_call,
            ..ChatRequest::default()
        }),
        sampling,
        stop,
        seed: options::seed(fields)?,
        top_logprobs,
        conversation: context.conversation.clone(),
        call_prefix: ids::fresh("call_"),
        ignore_eos: false,
        stream,
    };
    neutral::responses(fields)?;
    fields.finish()?;
    let id = ids::fresh("resp_");
    let writer = ResponseWriter::new(writer::Options {
        head: head(&id, &model.name, body, &ask, store),
        id,
        logprobs: logprobs.then_some(TokenText::default()),
        token_ids,
        truncated_as_completed: overrides.truncated_as_completed,
        conversation: store.then_some(items),
    });
    Ok(Plan { asks: vec![ask], stream, writer: Box::new(writer) })
}

async fn recalled(id: &str, context: &CallContext) -> Result<Vec<Value>, ApiError> {
    context.memory.recall(id).await.ok_or_else(|| {
        let message = format!(
            "the previous response {id:?} is unknown or was evicted; send the whole conversation \
             as `input`"
        );
        let param = Some("previous_response_id".to_owned());
        ApiError { param, ..ApiError::new(400, Some("previous_response_not_found"), message) }
    })
}

/// `input` as items.
fn input(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    match fields.value("input") {
        Some(Value::String(text)) => Ok(vec![json!({"role": "user", "content": text})]),
        Some(Value::Array(items)) if !items.is_empty() => Ok(items.clone()),
        None => Err(fields.error("input", "is missing")),
        Some(other) => Err(wrong(fields.path("input"), "a text or a list of items", other)),
    }
}

fn text_format(fields: &mut Fields) -> Result<leyden_core::ResponseFormat, ApiError> {
    let Some(mut text) = fields.object("text")? else {
        return Ok(leyden_core::ResponseFormat::Text);
    };
    let format = tools::format(text.object("format")?, Spelling::Flat)?;
    text.skip(&["verbosity"]);
    text.finish()?;
    Ok(format)
}

fn includes_logprobs(fields: &mut Fields) -> Result<bool, ApiError> {
    let names = texts(fields.list("include")?.unwrap_or_default(), "include")?;
    match names.iter().position(|name| !INCLUDABLE.contains(&name.as_str())) {
        Some(i) => {
            let message = format!("`include[{i}]` is not a supported value");
            Err(ApiError::invalid(Some(format!("include[{i}]")), message))
        }
        None => Ok(names.iter().any(|name| name == LOGPROBS)),
    }
}

/// The fields of a response that are known before generation. Clients read back their own
/// settings.
fn head(
    id: &str,
    model: &str,
    body: &Map<String, Value>,
    ask: &Ask,
    store: bool,
) -> Map<String, Value> {
    let echo = |name: &str, default: Value| match body.get(name) {
        None | Some(Value::Null) => default,
        Some(value) => value.clone(),
    };
    let head = json!({
        "id": id,
        "object": "response",
        "created_at": options::now(),
        "model": model,
        "background": false,
        "instructions": echo("instructions", Value::Null),
        "max_output_tokens": echo("max_output_tokens", Value::Null),
        "max_tool_calls": echo("max_tool_calls", Value::Null),
        "metadata": echo("metadata", json!({})),
        "parallel_tool_calls": echo("parallel_tool_calls", true.into()),
        "previous_response_id": echo("previous_response_id", Value::Null),
        "reasoning": echo("reasoning", json!({"effort": null, "summary": null})),
        "service_tier": "default",
        "store": store,
        "temperature": ask.sampling.temperature,
        "text": echo("text", json!({"format": {"type": "text"}})),
        "tool_choice": echo("tool_choice", "auto".into()),
        "tools": echo("tools", json!([])),
        "top_logprobs": ask.top_logprobs,
        "top_p": ask.sampling.top_p,
        "truncation": "disabled",
        "user": echo("user", Value::Null),
    });
    match head {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
