//! `format=triplet`: events reduced to the fields that a trainer reads, as in v1.
//!
//! For a model call these are the prompt ids, response ids and log-probabilities of the first
//! choice. Among calls with the same prompt only the last is kept, because v1 treats them as
//! retries. A call without prompt ids (a failed one) is kept too, so that the trainer can count
//! it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::upstream::{Tree, answers};
use crate::store::{CallRow, StoredEvent};

/// The events as v1 returns them. `calls` are the recorded calls of the same attempt.
pub(super) fn view(events: Vec<StoredEvent>, calls: &[CallRow]) -> Vec<StoredEvent> {
    let first: HashMap<i64, &CallRow> =
        calls.iter().filter(|call| call.choice == 0).map(|call| (call.event, call)).collect();
    let mut last = HashMap::new();
    for event in &events {
        if let Some(call) = first.get(&event.seq).filter(|call| has_prompt(call)) {
            last.insert(call.answer.prompt_ids.as_slice(), event.seq);
        }
    }
    let stays = |event: &StoredEvent| match first.get(&event.seq).filter(|call| has_prompt(call)) {
        Some(call) => last.get(call.answer.prompt_ids.as_slice()) == Some(&event.seq),
        None => true,
    };
    let stay: Vec<bool> = events.iter().map(stays).collect();
    events
        .into_iter()
        .zip(stay)
        .filter_map(|(event, stays)| stays.then_some(event))
        .map(|event| cut(event, &first))
        .collect()
}

fn has_prompt(call: &CallRow) -> bool {
    !call.answer.prompt_ids.is_empty()
}

fn cut(event: StoredEvent, first: &HashMap<i64, &CallRow>) -> StoredEvent {
    let data = match event.event_type.as_str() {
        "model_request" => model_request(&event.data, first.get(&event.seq).copied()),
        "reward" => reward(&event.data),
        _ => return event,
    };
    StoredEvent { data: data.to_string(), ..event }
}

fn model_request(data: &str, call: Option<&CallRow>) -> Value {
    let data: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    // An event that an agent posted under this name has no call row.
    let read = || {
        let tree = data.get("response").and_then(|response| Tree::deserialize(response).ok());
        answers(&tree.unwrap_or(Tree::Null), 0)
    };
    let (prompt, response, logprobs) = match call {
        Some(CallRow { answer, .. }) => {
            (answer.prompt_ids.clone(), answer.response_ids.clone(), answer.logprobs.clone())
        }
        None => {
            let answer = read().into_iter().next();
            answer.map_or_else(Default::default, |answer| {
                let (ids, logprobs) =
                    answer.tokens.iter().map(|token| (token.id, token.logprob)).unzip();
                (answer.prompt_ids, ids, logprobs)
            })
        }
    };
    let finite = !logprobs.is_empty() && logprobs.iter().all(|logprob| logprob.is_finite());
    let server = data.get("server");
    let of_server = |key: &str| server.and_then(|server| server.get(key)).cloned();
    let mut cut = Map::new();
    cut.insert("prompt_token_ids".into(), json!(prompt));
    cut.insert("response_token_ids".into(), json!(response));
    cut.insert("response_log_probs".into(), if finite { json!(logprobs) } else { Value::Null });
    let server = json!({"model": of_server("model"), "version": of_server("version")});
    cut.insert("server".into(), server);
    for key in ["http_status", "status"] {
        if let Some(value) = data.get(key) {
            cut.insert(key.into(), value.clone());
        }
    }
    if let Some(error) = data.get("response").and_then(|response| response.get("error")) {
        cut.insert("error".into(), error.clone());
    }
    Value::Object(cut)
}

fn reward(data: &str) -> Value {
    let data: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    let mut cut = Map::new();
    cut.insert("value".into(), data.get("value").cloned().unwrap_or(Value::Null));
    for key in ["source", "reason"] {
        if let Some(value) = data.get(key) {
            cut.insert(key.into(), value.clone());
        }
    }
    Value::Object(cut)
}
