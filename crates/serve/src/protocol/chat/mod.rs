//! OpenAI's `/v1/chat/completions`, with the token fields of vLLM.

mod messages;
mod writer;

use leyden_core::{ChatRequest, ResponseFormat};
use serde_json::{Map, Value};

use self::writer::ChatWriter;
use super::bodies::Head;
use super::error::ApiError;
use super::fields::Fields;
use super::logprobs::TokenText;
use super::neutral;
use super::options::{self, MOST_ALTERNATIVES, MOST_CHOICES, Model};
use super::plan::Plan;
use super::tools::{self, Spelling, Tools};
use crate::backend::{Ask, Prompt};
use crate::call::CallContext;

pub(super) use self::messages::{Content, arguments};
pub(super) use self::writer::argument_text;

pub(super) fn read(body: &Map<String, Value>, context: &CallContext) -> Result<Plan, ApiError> {
    let fields = &mut Fields::root(body);
    let overrides = &context.overrides;
    let model = Model::read(fields, context)?;
    let messages = messages::read(fields)?;
    let tools = Tools::read(fields, Spelling::Nested)?;
    let response_format = tools::format(fields.object("response_format")?, Spelling::Nested)?;
    let limit = model.limit(max_tokens(fields)?, overrides);
    let sampling = options::sampling(fields, overrides, limit)?;
    let stop = options::stop(fields, "stop")?;
    let n = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1) as usize;
    let (logprobs, top_logprobs) = logprobs(fields)?;
    let as_ids = fields.flag("return_tokens_as_token_ids")?.unwrap_or(false);
    let token_ids = fields.flag("return_token_ids")?.unwrap_or(false) || overrides.token_ids;
    let stream = fields.flag("stream")?.unwrap_or(false);
    let include_usage = options::include_usage(fields)?;
    let ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
    if ignore_eos && (response_format != ResponseFormat::Text || !tools.specs.is_empty()) {
        let why = "requires plain text: a tool call or a response format ends the response";
        return Err(fields.error("ignore_eos", why));
    }
    let ask = Ask {
        prompt: Prompt::Chat(ChatRequest {
            agent_role: context.role.clone().unwrap_or_default(),
            messages,
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
        call_prefix: String::new(),
        ignore_eos,
        stream,
    };
    neutral::openai(fields)?;
    fields.finish()?;
    let offers_tools = matches!(&ask.prompt, Prompt::Chat(r) if !r.offered_tools().is_empty());
    let writer = ChatWriter::new(writer::Options {
        head: Head::new("chatcmpl-", model.name),
        logprobs: (logprobs || overrides.logprobs).then_some(TokenText { as_ids }),
        token_ids,
        include_usage,
        offers_tools,
        choices: n,
    });
    Ok(Plan { asks: options::repeated(&ask, n).collect(), stream, writer: Box::new(writer) })
}

/// Newer clients send `max_completion_tokens`, older ones `max_tokens`; the smaller applies.
fn max_tokens(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let new = fields.whole("max_completion_tokens", 1..=u64::MAX)?;
    let old = fields.whole("max_tokens", 1..=u64::MAX)?;
    Ok(new.into_iter().chain(old).min())
}

/// Whether to report log-probabilities, and the number of alternatives.
fn logprobs(fields: &mut Fields) -> Result<(bool, usize), ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.whole("top_logprobs", 0..=MOST_ALTERNATIVES)?.unwrap_or(0) as usize;
    if top > 0 && !wanted {
        return Err(fields.error("top_logprobs", "needs `logprobs` to be true"));
    }
    Ok((wanted, top))
}
