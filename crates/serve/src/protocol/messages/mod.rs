//! Anthropic's `/v1/messages`.

mod blocks;
mod writer;

use leyden_core::{ChatRequest, Message, ResponseFormat, ToolChoice, ToolSpec};
use serde_json::{Map, Value};

use self::writer::MessageWriter;
use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::options::{self, Model};
use super::plan::Plan;
use super::{ids, neutral, schema, tools};
use crate::backend::{Ask, Prompt};
use crate::call::CallContext;

pub(super) fn read(body: &Map<String, Value>, context: &CallContext) -> Result<Plan, ApiError> {
    let fields = &mut Fields::root(body);
    let overrides = &context.overrides;
    let model = Model::read(fields, context)?;
    let mut messages: Vec<Message> = blocks::system(fields)?.into_iter().collect();
    blocks::read(fields, &mut messages)?;
    let (tools, tool_choice, single_call) = offered(fields)?;
    let response_format = format(fields)?;
    let Some(max_tokens) = fields.whole("max_tokens", 1..=u64::MAX)? else {
        return Err(fields.error("max_tokens", "is missing"));
    };
    let limit = model.limit(Some(max_tokens), overrides);
    let sampling = options::sampling(fields, overrides, limit)?;
    let stop = options::stop(fields, "stop_sequences")?;
    let token_ids = fields.flag("return_token_ids")?.unwrap_or(false) || overrides.token_ids;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let ask = Ask {
        prompt: Prompt::Chat(ChatRequest {
            agent_role: context.role.clone().unwrap_or_default(),
            messages,
            tools,
            stop: stop.clone(),
            tool_choice,
            response_format,
            single_call,
            ..ChatRequest::default()
        }),
        sampling,
        stop,
        seed: options::seed(fields)?,
        top_logprobs: 0,
        conversation: context.conversation.clone(),
        call_prefix: ids::fresh("toolu_"),
        ignore_eos: false,
        stream,
    };
    neutral::messages(fields)?;
    fields.finish()?;
    let writer = MessageWriter::new(ids::fresh("msg_"), model.name, token_ids);
    Ok(Plan { asks: vec![ask], stream, writer: Box::new(writer) })
}

/// Tools, the tool choice, and whether one call ends the response.
fn offered(fields: &mut Fields) -> Result<(Vec<ToolSpec>, ToolChoice, bool), ApiError> {
    let path = fields.path("tools");
    let specs = tools::specs(fields.list("tools")?.unwrap_or_default(), &path, spec)?;
    let Some(mut choice) = fields.object("tool_choice")? else {
        return Ok((specs, ToolChoice::Auto, false));
    };
    let single_call = choice.flag("disable_parallel_tool_use")?.unwrap_or(false);
    let kind = match choice.needed_text("type")? {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Required,
        "tool" => ToolChoice::Named(choice.needed_text("name")?.to_owned()),
        other => {
            let known = "must be auto, any, tool or none";
            return Err(choice.error("type", format_args!("{known}, not {other:?}")));
        }
    };
    choice.finish()?;
    tools::check_choice(&kind, &specs, "tool_choice")?;
    Ok((specs, kind, single_call))
}

/// A tool that the client runs. Tools that Anthropic runs have dated types.
fn spec(value: &Value, place: String) -> Result<ToolSpec, ApiError> {
    let mut fields = Fields::at(value, place)?;
    fields.neutral("type", |kind| kind == "custom", "server-side tools are not supported")?;
    let spec = tools::tool(&mut fields, "input_schema")?;
    fields.flag("strict")?;
    fields.neutral("defer_loading", |v| v == false, "all tools are shown to the model")?;
    fields.skip(&["cache_control", "eager_input_streaming"]);
    fields.finish()?;
    Ok(spec)
}

/// `output_config`: a schema for the response, and an effort, which is a hint.
fn format(fields: &mut Fields) -> Result<ResponseFormat, ApiError> {
    let Some(mut config) = fields.object("output_config")? else {
        return Ok(ResponseFormat::Text);
    };
    config.skip(&["effort"]);
    let format = match config.object("format")? {
        None => ResponseFormat::Text,
        Some(mut format) => {
            match format.needed_text("type")? {
                "json_schema" => {}
                other => {
                    let rule = format!("is {other:?}, not json_schema");
                    return Err(format.error("type", rule));
                }
            }
            let path = format.path("schema");
            let Some(value) = format.value("schema") else {
                return Err(wrong(path, "a JSON schema", &Value::Null));
            };
            schema::check(value, &path)?;
            format.finish()?;
            ResponseFormat::JsonSchema(value.clone())
        }
    };
    config.finish()?;
    Ok(format)
}
