//! Fields that are accepted because they have no effect.
//!
//! There are two kinds: some never affect the response, whatever their value (user, billing, cache
//! lifetime, reasoning effort); others have one value that requests the default behaviour. Every
//! other value of the latter is rejected by name, and so is every field that is in neither list.

use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;

/// For OpenAI's endpoints. `reasoning_effort` and `verbosity` are hints to models that support
/// them; ours do not, and the Agents SDK sends them by default with its default model.
const HARMLESS: &[&str] = &[
    "user",
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "reasoning_effort",
    "verbosity",
    "request_id",
    "cache_salt",
];

type Neutral = (&'static str, fn(&Value) -> bool, &'static str);

const NO_PENALTY: &str = "penalties are not supported; remove it";
const TEXT_ONLY: &str = "the model reads and writes text only";

/// For OpenAI's endpoints: field, its neutral values, and why no other is supported.
const OPENAI: &[Neutral] = &[
    ("frequency_penalty", zero, NO_PENALTY),
    ("presence_penalty", zero, NO_PENALTY),
    ("repetition_penalty", one, NO_PENALTY),
    ("length_penalty", one, NO_PENALTY),
    ("logit_bias", empty, "biases are not supported; remove it"),
    ("functions", never, "the old function calls are replaced by `tools`"),
    ("function_call", never, "the old function calls are replaced by `tool_choice`"),
    ("modalities", text_only, TEXT_ONLY),
    ("audio", never, TEXT_ONLY),
    ("prediction", never, "predicted outputs are not supported; remove it"),
    ("web_search_options", never, "there is no web search; offer it as a tool"),
    ("moderation", never, "moderation is not supported; remove it"),
    ("service_tier", default_tier, "the only tier is `default`"),
    ("min_p", zero, "use `top_p` or `top_k`"),
    ("min_tokens", zero, "a minimum length is not supported"),
    ("stop_token_ids", empty, "use `stop`"),
    ("bad_words", empty, "banned words are not supported; remove it"),
    ("use_beam_search", off, "responses are sampled"),
    ("skip_special_tokens", on, "special tokens are not part of the text"),
    ("include_stop_str_in_output", off, "the stop text is not part of the response"),
    ("prompt_logprobs", zero, "log-probabilities of prompts are not supported"),
    ("add_generation_prompt", on, "the response is always a new message"),
    ("continue_final_message", off, "the response is always a new message"),
    ("add_special_tokens", off, "the template adds special tokens"),
    ("echo", off, "the response does not repeat the prompt"),
    ("chat_template", never, "the model's own template is used"),
    ("chat_template_kwargs", empty, "the model's own template is used as it is"),
    ("documents", empty, "put documents into a message"),
    ("suffix", empty, "the model writes from left to right"),
];

/// Reads the harmless and neutral fields of OpenAI's chat and text completions.
pub(super) fn openai(fields: &mut Fields) -> Result<(), ApiError> {
    fields.skip(HARMLESS);
    check(fields, OPENAI)
}

/// For `/v1/responses`, in addition to the common ones.
const RESPONSES: &[Neutral] = &[
    ("background", off, "background responses are not supported"),
    ("ignore_eos", off, "a response ends where the model ends it"),
    ("conversation", never, "use `previous_response_id`"),
    ("prompt", never, "stored prompts are not supported; use `instructions` and `input`"),
    ("truncation", disabled, "a prompt that is too long is an error"),
    ("context_management", empty, "compaction is not supported"),
];

/// Reads the harmless and neutral fields of `/v1/responses`.
pub(super) fn responses(fields: &mut Fields) -> Result<(), ApiError> {
    openai(fields)?;
    check(fields, RESPONSES)
}

/// For Anthropic's `/v1/messages`.
const MESSAGES: &[Neutral] = &[
    ("thinking", no_thinking, "separate thinking is not supported"),
    ("container", never, "containers are not supported"),
    ("mcp_servers", empty, "MCP servers are not supported; offer tools"),
    ("context_management", no_edits, "context editing is not supported"),
    ("speed", standard, "the only speed is `standard`"),
    ("service_tier", standard, "the only tier is `standard_only`"),
];

/// Reads the harmless and neutral fields of `/v1/messages`.
pub(super) fn messages(fields: &mut Fields) -> Result<(), ApiError> {
    fields.skip(&["metadata", "cache_control", "inference_geo", "diagnostics"]);
    check(fields, MESSAGES)
}

fn check(fields: &mut Fields, table: &[Neutral]) -> Result<(), ApiError> {
    table.iter().try_for_each(|&(name, neutral, why)| fields.neutral(name, neutral, why))
}

pub(super) fn never(_: &Value) -> bool {
    false
}

pub(super) fn zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn on(value: &Value) -> bool {
    value == true
}

fn off(value: &Value) -> bool {
    value == false
}

pub(super) fn empty(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn text_only(value: &Value) -> bool {
    value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"))
}

fn default_tier(value: &Value) -> bool {
    value == "auto" || value == "default"
}

fn standard(value: &Value) -> bool {
    value == "auto" || value == "standard" || value == "standard_only"
}

fn disabled(value: &Value) -> bool {
    value == "disabled"
}

/// `adaptive` lets the model choose; ours chooses not to.
fn no_thinking(value: &Value) -> bool {
    value["type"] == "disabled" || value["type"] == "adaptive"
}

fn no_edits(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(empty))
}
