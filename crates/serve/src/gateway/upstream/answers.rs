//! Parses a model server's response into answers with token ids.

use leyden_core::{FinishReason, ToolCall};
use serde_json::Value;

use super::tree::Tree;
use crate::backend::{Answer, Token};

/// The choices of a chat or text completion, in order of their index. Ids and log-probabilities
/// are included as far as the server returned them (vLLM's `return_token_ids`); a missing
/// log-probability is NaN.
pub(in crate::gateway) fn answers(response: &Tree, version: i64) -> Vec<Answer> {
    let choices = response.get("choices").and_then(Tree::list);
    choices.into_iter().flatten().map(|choice| answer(response, choice, version)).collect()
}

fn answer(response: &Tree, choice: &Tree, version: i64) -> Answer {
    let message = choice.get("message").unwrap_or(&Tree::Null);
    let text = choice.get("text").or_else(|| message.get("content"));
    let prompt = response.get("prompt_token_ids").or_else(|| choice.get("prompt_token_ids"));
    let cached = response
        .get("usage")
        .and_then(|usage| usage.get("prompt_tokens_details")?.get("cached_tokens")?.whole());
    let calls = message.get("tool_calls").and_then(Tree::list);
    let is_length = choice.get("finish_reason").and_then(Tree::text) == Some("length");
    Answer {
        content: text.and_then(Tree::text).unwrap_or_default().to_owned(),
        tool_calls: calls.into_iter().flatten().filter_map(tool_call).collect(),
        malformed_call: None,
        finish: if is_length { FinishReason::Length } else { FinishReason::Stop },
        stop_text: choice.get("stop_reason").and_then(Tree::text).map(str::to_owned),
        prompt_ids: ids(prompt),
        tokens: tokens(choice),
        cached_tokens: cached.and_then(|cached| usize::try_from(cached).ok()).unwrap_or(0),
        policy_version: version.max(0).unsigned_abs(),
        constrained: false,
    }
}

fn ids(value: Option<&Tree>) -> Vec<u32> {
    let list = value.and_then(Tree::list);
    list.into_iter().flatten().filter_map(|id| id.whole()?.try_into().ok()).collect()
}

fn tokens(choice: &Tree) -> Vec<Token> {
    let ids = ids(choice.get("token_ids"));
    let logprobs = choice.get("logprobs").unwrap_or(&Tree::Null);
    let content = logprobs.get("content").and_then(Tree::list);
    let plain = logprobs.get("token_logprobs").and_then(Tree::list);
    let token = |(position, id): (usize, &u32)| {
        let entry = content.and_then(|content| content.get(position));
        let number = match (entry, plain) {
            (Some(entry), _) => entry.get("logprob"),
            (None, Some(plain)) => plain.get(position),
            (None, None) => None,
        };
        let bytes = entry.and_then(|entry| entry.get("bytes")?.list());
        Token {
            id: *id,
            logprob: number.and_then(Tree::number).map_or(f32::NAN, |number| number as f32),
            bytes: bytes
                .into_iter()
                .flatten()
                .filter_map(|byte| byte.whole()?.try_into().ok())
                .collect(),
            top: Vec::new(),
        }
    };
    ids.iter().enumerate().map(token).collect()
}

/// A call whose arguments are not valid JSON keeps them as a string.
fn tool_call(call: &Tree) -> Option<ToolCall> {
    let function = call.get("function")?;
    let text = function.get("arguments").and_then(Tree::text).unwrap_or("{}");
    Some(ToolCall {
        id: call.get("id").and_then(Tree::text).unwrap_or_default().to_owned(),
        name: function.get("name")?.text()?.to_owned(),
        arguments: serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    })
}
