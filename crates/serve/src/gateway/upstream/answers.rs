//! What a model server answered, as answers with token ids.

use leyden_core::{FinishReason, ToolCall};
use serde_json::Value;

use crate::backend::{Answer, Token};

/// The choices of a chat or text completion, in order of their index. Ids and log-probabilities
/// are there as far as the server gave them (vLLM's `return_token_ids`); a log-probability that
/// was not given is NaN.
pub(in crate::gateway) fn answers(response: &Value, version: i64) -> Vec<Answer> {
    let choices = response.get("choices").and_then(Value::as_array);
    choices.into_iter().flatten().map(|choice| answer(response, choice, version)).collect()
}

fn answer(response: &Value, choice: &Value, version: i64) -> Answer {
    let message = choice.get("message").unwrap_or(&Value::Null);
    let text = choice.get("text").or_else(|| message.get("content"));
    let prompt = response.get("prompt_token_ids").or_else(|| choice.get("prompt_token_ids"));
    let cached = response
        .get("usage")
        .and_then(|usage| usage.get("prompt_tokens_details")?.get("cached_tokens")?.as_u64());
    let calls = message.get("tool_calls").and_then(Value::as_array);
    let is_length = choice.get("finish_reason").and_then(Value::as_str) == Some("length");
    Answer {
        content: text.and_then(Value::as_str).unwrap_or_default().to_owned(),
        tool_calls: calls.into_iter().flatten().filter_map(tool_call).collect(),
        malformed_call: None,
        finish: if is_length { FinishReason::Length } else { FinishReason::Stop },
        stop_text: choice.get("stop_reason").and_then(Value::as_str).map(str::to_owned),
        prompt_ids: ids(prompt),
        tokens: tokens(choice),
        cached_tokens: cached.and_then(|cached| usize::try_from(cached).ok()).unwrap_or(0),
        policy_version: version.max(0).unsigned_abs(),
        constrained: false,
    }
}

fn ids(value: Option<&Value>) -> Vec<u32> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|id| id.as_u64()?.try_into().ok()).collect()
}

fn tokens(choice: &Value) -> Vec<Token> {
    let ids = ids(choice.get("token_ids"));
    let logprobs = choice.get("logprobs").unwrap_or(&Value::Null);
    let content = logprobs.get("content").and_then(Value::as_array);
    let plain = logprobs.get("token_logprobs").and_then(Value::as_array);
    let token = |(position, id): (usize, &u32)| {
        let entry = content.and_then(|content| content.get(position));
        let number = match (entry, plain) {
            (Some(entry), _) => entry.get("logprob"),
            (None, Some(plain)) => plain.get(position),
            (None, None) => None,
        };
        let bytes = entry.and_then(|entry| entry.get("bytes")?.as_array());
        Token {
            id: *id,
            logprob: number.and_then(Value::as_f64).map_or(f32::NAN, |number| number as f32),
            bytes: bytes
                .into_iter()
                .flatten()
                .filter_map(|byte| byte.as_u64()?.try_into().ok())
                .collect(),
            top: Vec::new(),
        }
    };
    ids.iter().enumerate().map(token).collect()
}

/// A call whose arguments are no JSON keeps them as a text.
fn tool_call(call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let text = function.get("arguments").and_then(Value::as_str).unwrap_or("{}");
    Some(ToolCall {
        id: call.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(),
        name: function.get("name")?.as_str()?.to_owned(),
        arguments: serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    })
}
