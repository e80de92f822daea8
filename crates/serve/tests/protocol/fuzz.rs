//! Fuzzing of request bodies: every request gets a response with a status other than 500.
//!
//! Valid bodies of all endpoints are mutated: values swapped, fields dropped, duplicated and
//! renamed, lists and objects nested, numbers made huge, bytes flipped, texts truncated. A few
//! thousand cases always run; `LEYDEN_FUZZ_CASES=100000` sets the number.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use leyden_core::SeedTree;
use leyden_serve::backend::Prompt;
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::call::{Endpoint, Overrides};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::harness::{Harness, MODEL};

/// Few enough to run with every test run.
const CASES: u64 = 4000;

fn cases() -> u64 {
    std::env::var("LEYDEN_FUZZ_CASES").map_or(CASES, |n| n.parse().expect("a number of cases"))
}

/// Bodies that use every field of an endpoint.
fn seeds() -> Vec<(Endpoint, Value)> {
    let schema = json!({"type": "object", "properties": {"a": {"type": ["number", "null"],
        "enum": [1, 2]}, "b": {"type": "array", "items": {"anyOf": [{"type": "string"}, true]}}},
        "required": ["a"], "additionalProperties": false, "$defs": {"c": {}}});
    let function = json!({"name": "add", "description": "d", "parameters": schema, "strict": true});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let chat = json!({
        "model": MODEL,
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "2 + 3?", "name": "ada"},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "5"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": false, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "n": 2,
        "max_tokens": 50, "max_completion_tokens": 40, "stop": ["END"], "seed": 3,
        "logprobs": true, "top_logprobs": 2, "return_token_ids": true, "stream": true,
        "stream_options": {"include_usage": true}, "response_format": format, "user": "u",
        "frequency_penalty": 0, "logit_bias": {}, "metadata": {"a": "b"},
    });
    let completions = json!({
        "model": MODEL, "prompt": [[1, 2, 3], "text"], "max_tokens": 20, "n": 2, "stop": "END",
        "logprobs": 2, "echo": false, "suffix": "", "best_of": 2, "stream": true, "seed": 1,
        "return_tokens_as_token_ids": true, "return_token_ids": true, "temperature": 1,
    });
    let responses = json!({
        "model": MODEL, "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "2 + 3?"}]},
            {"type": "message", "id": "m", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Hm", "annotations": []}]},
            {"type": "function_call", "id": "f", "call_id": "c", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "5"}]},
            {"type": "reasoning", "id": "r", "summary": []},
        ],
        "tools": [{"type": "function", "name": "add", "parameters": schema}],
        "tool_choice": {"type": "function", "name": "add"}, "max_output_tokens": 50,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}, "verbosity": "low"},
        "previous_response_id": null, "store": true, "include": ["message.output_text.logprobs"],
        "reasoning": {"effort": "low"}, "metadata": {}, "truncation": "disabled", "stream": true,
        "temperature": 1, "top_p": 1, "top_logprobs": 1, "parallel_tool_calls": true,
    });
    let messages = json!({
        "model": MODEL, "max_tokens": 50, "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "2 + 3?", "cache_control": {}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hm"},
                {"type": "tool_use", "id": "t", "name": "add", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
                "content": [{"type": "text", "text": "5"}], "is_error": false}]},
        ],
        "tools": [{"name": "add", "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": true},
        "stop_sequences": ["END"], "stream": true, "temperature": 0.5, "top_p": 1, "top_k": 3,
        "metadata": {"user_id": "u"}, "thinking": {"type": "disabled"},
        "output_config": {"format": {"type": "json_schema", "schema": schema}, "effort": "low"},
    });
    vec![
        (Endpoint::Chat, chat),
        (Endpoint::Completions, completions),
        (Endpoint::Responses, responses),
        (Endpoint::Messages, messages),
    ]
}

/// Edge-case values.
fn strange(rng: &mut ChaCha8Rng) -> Value {
    let nested = |depth: usize, wrap: fn(Value) -> Value| (0..depth).fold(json!(1), |v, _| wrap(v));
    match rng.random_range(0..22) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!(1e308),
        8 => json!(-0.0),
        9 => json!(1.5),
        10 => json!(""),
        11 => json!("\u{0}\u{202e}\u{fffd}\u{1f600}"),
        12 => json!("x".repeat(10_000)),
        13 => json!([]),
        14 => json!({}),
        15 => json!([null, 1, "a", [], {}]),
        16 => json!({"type": "text", "text": "a", "": null}),
        17 => nested(rng.random_range(1..200), |v| json!([v])),
        18 => nested(rng.random_range(1..200), |v| json!({"properties": {"a": v}})),
        19 => json!("function"),
        20 => json!(["user", "assistant", "tool"]),
        _ => json!("assistant"),
    }
}

/// JSON pointers to all parts of a value.
fn places(value: &Value, here: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            places(value, format!("{here}/{name}"), all);
        }),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .for_each(|(i, value)| places(value, format!("{here}/{i}"), all)),
        _ => {}
    }
    all.push(here);
}

fn pick<T: Clone>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

/// Mutates one part of a body.
fn mutate(body: &mut Value, rng: &mut ChaCha8Rng) {
    let mut all = Vec::new();
    places(body, String::new(), &mut all);
    let (place, other) = (pick(rng, &all), pick(rng, &all));
    let other = body.pointer(&other).cloned().unwrap_or_default();
    let name = pick(rng, &["type", "role", "stream", "n", "name", "x", "content", "tools"]);
    let Some(value) = body.pointer_mut(&place) else { return };
    match rng.random_range(0..7) {
        0 | 1 => *value = strange(rng),
        2 => *value = other,
        3 => match value {
            Value::Object(map) => {
                map.insert(name.to_owned(), strange(rng));
            }
            Value::Array(values) => values.push(strange(rng)),
            Value::String(text) => text.push_str(name),
            _ => *value = json!([value.clone()]),
        },
        4 => match value {
            Value::Object(map) => {
                let names: Vec<String> = map.keys().cloned().collect();
                if !names.is_empty() {
                    map.remove(&pick(rng, &names));
                }
            }
            Value::Array(values) => {
                values.pop();
            }
            other => *other = Value::Null,
        },
        5 => match value {
            Value::Array(values) => {
                let doubled = values.clone();
                values.extend(doubled);
            }
            Value::Object(map) => {
                let renamed: Map<String, Value> =
                    map.iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
                *map = renamed;
            }
            other => *other = json!({ name: other.clone() }),
        },
        _ => *value = json!([value.clone(), value.clone()]),
    }
}

/// Mutates the bytes of a body.
fn garble(text: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=text.len());
    match rng.random_range(0..5) {
        0 => text.truncate(at),
        1 => text.splice(at..at, [0xff, 0xfe]).for_each(drop),
        2 => text.splice(at..at, *b"1e999").for_each(drop),
        3 => text.splice(at..at, std::iter::repeat_n(b'[', 5000)).for_each(drop),
        _ => {
            if let Some(byte) = text.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
    }
}

fn bytes(body: &mut Value, rng: &mut ChaCha8Rng) -> Vec<u8> {
    for _ in 0..rng.random_range(0..4) {
        mutate(body, rng);
    }
    let mut text = body.to_string().into_bytes();
    if rng.random_range(0..6) == 0 {
        garble(&mut text, rng);
    }
    text
}

/// Replies with a call of each offered tool, or with text.
fn backend() -> Scripted {
    Scripted::new(MODEL, |ask| {
        let Prompt::Chat(request) = &ask.prompt else { return Reply::text("so they say") };
        let calls = request.offered_tools().iter().map(|tool| (tool.name.clone(), json!({"a": 1})));
        Reply::Say { content: "Well.".to_owned(), calls: calls.collect() }
    })
}

#[tokio::test]
async fn every_body_gets_a_response() {
    let seeds = seeds();
    let tree = SeedTree::new(18);
    let mut statuses: BTreeMap<(&str, u16), u64> = BTreeMap::new();
    let harnesses = [false, true].map(|any_model| {
        let overrides = Overrides { any_model, token_ids: any_model, ..Overrides::default() };
        Harness::new(backend()).with(overrides)
    });
    for case in 0..cases() {
        let mut rng = tree.index(case).rng();
        let (endpoint, mut body) = pick(&mut rng, &seeds);
        let text = bytes(&mut body, &mut rng);
        let harness = pick(&mut rng, &harnesses);
        let sent = AssertUnwindSafe(harness.send(endpoint, text.clone())).catch_unwind().await;
        let Ok(got) = sent else {
            panic!("case {case} panics: {}", String::from_utf8_lossy(&text));
        };
        assert!(
            matches!(got.status, 200 | 400 | 404),
            "case {case} gives {}: {}",
            got.status,
            String::from_utf8_lossy(&text)
        );
        let streams = got.headers["content-type"] == "text/event-stream";
        if streams {
            assert!(!got.events().is_empty());
        } else {
            assert!(got.json().is_object());
        }
        *statuses.entry((endpoint.path(), got.status)).or_default() += 1;
        // Bounds memory.
        harness.recorder.records.lock().unwrap().clear();
        harness.memory.0.lock().unwrap().clear();
    }
    println!("{} bodies by endpoint and status: {statuses:?}", cases());
    for (endpoint, _) in seeds {
        for status in [200, 400] {
            let seen = statuses.get(&(endpoint.path(), status)).copied().unwrap_or(0);
            assert!(seen > cases() / 50, "{}: only {seen} of {status}", endpoint.path());
        }
    }
}
