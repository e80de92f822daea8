//! Fields that are accepted because they change nothing.
//!
//! Two kinds: some say nothing about the response whatever they hold (who asks, where it is
//! billed, how long a cache lives, how hard a reasoning model should think), others have one
//! value that asks for what happens anyway. Every other value of the latter is refused by
//! name, and so is every field that is in neither list.

use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;

/// Of OpenAI's endpoints. `reasoning_effort` and `verbosity` are hints to models that have
/// such a dial; ours have none, and the Agents SDK sends them unasked with its default model.
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

const NO_PENALTY: &str = "tokens are not penalised here; leave it out";
const TEXT_ONLY: &str = "the model reads and writes text only";

/// Of OpenAI's endpoints: field, the values that change nothing, why no other.
const OPENAI: &[Neutral] = &[
    ("frequency_penalty", zero, NO_PENALTY),
    ("presence_penalty", zero, NO_PENALTY),
    ("repetition_penalty", one, NO_PENALTY),
    ("length_penalty", one, NO_PENALTY),
    ("logit_bias", empty, "single tokens are not biased here; leave it out"),
    ("functions", never, "the old function calls are replaced by `tools`"),
    ("function_call", never, "the old function calls are replaced by `tool_choice`"),
    ("modalities", text_only, TEXT_ONLY),
    ("audio", never, TEXT_ONLY),
    ("prediction", never, "predicted outputs are not used here; leave it out"),
    ("web_search_options", never, "there is no web search here; offer it as a tool"),
    ("moderation", never, "nothing is moderated here; leave it out"),
    ("service_tier", default_tier, "there is one tier, `default`"),
    ("min_p", zero, "use `top_p` or `top_k`"),
    ("min_tokens", zero, "a response may be as short as the model wants"),
    ("stop_token_ids", empty, "use `stop`"),
    ("bad_words", empty, "no words are forbidden here; leave it out"),
    ("use_beam_search", off, "responses are sampled"),
    ("skip_special_tokens", on, "special tokens are not part of the text"),
    ("include_stop_str_in_output", off, "the stop text is not part of the response"),
    ("prompt_logprobs", zero, "prompts have no log-probabilities here"),
    ("add_generation_prompt", on, "the response is always a new message"),
    ("continue_final_message", off, "the response is always a new message"),
    ("add_special_tokens", off, "the template decides about special tokens"),
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

/// Of `/v1/responses`, beyond the common ones.
const RESPONSES: &[Neutral] = &[
    ("background", off, "responses are answered at once"),
    ("ignore_eos", off, "a response ends where the model ends it"),
    ("conversation", never, "use `previous_response_id`"),
    ("prompt", never, "there are no stored prompts here; use `instructions` and `input`"),
    ("truncation", disabled, "a prompt that is too long is an error"),
    ("context_management", empty, "conversations are not compacted here"),
];

/// Reads the harmless and neutral fields of `/v1/responses`.
pub(super) fn responses(fields: &mut Fields) -> Result<(), ApiError> {
    openai(fields)?;
    check(fields, RESPONSES)
}

/// Of Anthropic's `/v1/messages`.
const MESSAGES: &[Neutral] = &[
    ("thinking", no_thinking, "the model does not think apart from its answer"),
    ("container", never, "there are no containers here"),
    ("mcp_servers", empty, "there are no MCP servers here; offer tools"),
    ("context_management", no_edits, "conversations are not edited here"),
    ("speed", standard, "there is one speed, `standard`"),
    ("service_tier", standard, "there is one tier, `standard_only`"),
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
