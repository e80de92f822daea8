//! `/v1/chat/completions`.

use leyden_core::{ResponseFormat, ToolChoice};
use leyden_serve::backend::Prompt;
use leyden_serve::backend::stub::{END, Reply, Scripted};
use leyden_serve::call::{Endpoint, Overrides};
use leyden_serve::protocol;
use serde_json::{Value, json};

use crate::harness::{Harness, MODEL, gathered, joined, with};

pub fn body() -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": "What is 2 + 3?"}]})
}

pub fn tools() -> Value {
    let function = json!({"name": "add", "description": "adds", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}});
    json!([{"type": "function", "function": function}])
}

fn both() -> Reply {
    let calls = ["add", "add"].map(|name| (name.to_owned(), json!({"a": 1})));
    Reply::Say { content: "I add.".to_owned(), calls: calls.to_vec() }
}

#[tokio::test]
async fn an_answer_has_every_field_that_clients_read() {
    let harness =
        Harness::new(Scripted::new(MODEL, |_| Reply::text("Five.")).with_policy_version(7));
    let got = harness.post(Endpoint::Chat, &body()).await;
    assert_eq!(got.headers["content-type"], "application/json");
    let mut answer = got.ok();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    for volatile in ["id", "created"] {
        answer.as_object_mut().unwrap().remove(volatile);
    }
    let expected = json!({
        "object": "chat.completion",
        "model": MODEL,
        "system_fingerprint": "policy-7",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Five.", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn the_joined_stream_equals_the_whole_response() {
    let wanted = json!({"tools": tools(), "logprobs": true, "top_logprobs": 2,
                        "return_token_ids": true, "stream_options": {"include_usage": true}});
    for backend in [
        Scripted::new(MODEL, |_| both()),
        // A backend that sends only the final event.
        Scripted::new(MODEL, |_| both()).without_deltas(),
    ] {
        let harness = Harness::new(backend);
        let body = with(body(), wanted.clone());
        let whole = harness.post(Endpoint::Chat, &body).await.ok();
        let streamed = harness.post(Endpoint::Chat, &with(body, json!({"stream": true}))).await;
        let chunks = streamed.chunks();
        let choice = &whole["choices"][0];
        let delta = |name: &str| format!("/choices/0/delta/{name}");
        assert_eq!(joined(&chunks, &delta("content")), choice["message"]["content"]);
        assert_eq!(Value::from(gathered(&chunks, "/choices/0/token_ids")), choice["token_ids"]);
        assert_eq!(
            Value::from(gathered(&chunks, "/choices/0/logprobs/content")),
            choice["logprobs"]["content"]
        );
        let calls = gathered(&chunks, &delta("tool_calls"));
        let whole_calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), whole_calls.len());
        for (i, (streamed, whole)) in calls.iter().zip(whole_calls).enumerate() {
            assert_eq!(streamed["index"], i);
            assert_eq!(streamed["function"], whole["function"]);
            assert_eq!(streamed["type"], "function");
        }
        // The record of a streamed call has the whole body.
        let recorded = harness.records()[1].response.value();
        assert_eq!(recorded["choices"][0]["message"]["tool_calls"][0]["id"], calls[0]["id"]);
        assert_eq!(recorded["choices"][0]["logprobs"], choice["logprobs"]);
        assert_eq!(recorded["usage"], chunks.last().unwrap()["usage"]);
    }
}

#[tokio::test]
async fn chunks_separate_text_calls_finish_and_usage() {
    let wanted = json!({"tools": tools(), "stream": true, "return_token_ids": true,
                        "stream_options": {"include_usage": true}});
    let harness = Harness::replying(both());
    let got = harness.post(Endpoint::Chat, &with(body(), wanted)).await;
    assert_eq!(got.headers["cache-control"], "no-cache");
    let chunks = got.chunks();
    let (first, rest) = chunks.split_first().unwrap();
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": null}));
    assert_eq!(first["prompt_token_ids"].as_array().unwrap().len(), 5);
    assert!(rest.iter().all(|chunk| chunk.get("prompt_token_ids").is_none()));
    let (usage, rest) = rest.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], 5);
    let (finish, rest) = rest.split_last().unwrap();
    assert_eq!(finish["choices"][0]["delta"], json!({}));
    assert_eq!(finish["choices"][0]["finish_reason"], "tool_calls");
    for chunk in rest {
        let delta = chunk["choices"][0]["delta"].as_object().unwrap();
        assert_eq!(delta.len(), 1, "text or calls: {delta:?}");
        assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null);
        assert_eq!(chunk["usage"], Value::Null);
        if let Some(calls) = delta.get("tool_calls") {
            assert_eq!(calls.as_array().unwrap().len(), 1);
            assert!(calls[0]["function"]["arguments"].is_string());
        }
    }
    let same = |name: &str| chunks.iter().all(|chunk| chunk[name] == chunks[0][name]);
    assert!(["id", "created", "model", "object", "system_fingerprint"].iter().all(|n| same(n)));
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
}

#[tokio::test]
async fn calls_without_text_have_content_null() {
    let harness = Harness::replying(Reply::call("add", json!({"a": 1.5})));
    let answer = harness.post(Endpoint::Chat, &with(body(), json!({"tools": tools()}))).await.ok();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"].get("content"), Some(&Value::Null));
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({"name": "add", "arguments": "{\"a\":1.5}"}));
}

/// Clients collect call ids of many responses in one history.
#[tokio::test]
async fn ids_of_calls_differ_across_responses_and_choices() {
    let harness = Harness::replying(both());
    let body = with(body(), json!({"tools": tools(), "n": 3}));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = harness.post(Endpoint::Chat, &body).await.ok();
        for choice in answer["choices"].as_array().unwrap() {
            let calls = choice["message"]["tool_calls"].as_array().unwrap();
            ids.extend(calls.iter().map(|call| call["id"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(ids.len(), 12);
    assert!(ids.iter().all(|id| id.starts_with("call_")));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12);
}

#[tokio::test]
async fn calls_are_dropped_if_no_tools_were_offered() {
    for extra in [json!({}), json!({"tools": tools(), "tool_choice": "none"})] {
        for stream in [false, true] {
            let harness = Harness::replying(both());
            let body = with(with(body(), extra.clone()), json!({ "stream": stream }));
            let got = harness.post(Endpoint::Chat, &body).await;
            assert!(!String::from_utf8_lossy(&got.bytes).contains("tool_calls"));
            assert_eq!(harness.recorded()["choices"][0]["finish_reason"], "stop");
        }
    }
}

#[tokio::test]
async fn without_parallel_calls_there_is_at_most_one() {
    let harness = Harness::replying(both());
    let body = with(body(), json!({"tools": tools(), "parallel_tool_calls": false}));
    let answer = harness.post(Endpoint::Chat, &body).await.ok();
    assert!(harness.request().single_call);
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_request_is_passed_to_the_backend() {
    let harness = Harness::replying(Reply::text("Five."));
    let schema = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
    let body = with(
        body(),
        json!({
            "tools": tools(), "tool_choice": {"type": "function", "function": {"name": "add"}},
            "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 90,
            "max_completion_tokens": 80, "stop": "END", "seed": -1, "stream": true,
            "logprobs": true, "top_logprobs": 3,
            "response_format": {"type": "json_schema",
                                "json_schema": {"name": "x", "strict": true, "schema": schema}},
        }),
    );
    harness.post(Endpoint::Chat, &body).await.chunks();
    let ask = harness.ask();
    let sampling = &ask.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.5, 0.9, 40));
    assert_eq!((sampling.max_tokens, ask.top_logprobs, ask.seed), (80, 3, Some(u64::MAX)));
    assert_eq!((ask.stop.as_slice(), ask.stream), (["END".to_owned()].as_slice(), true));
    assert_eq!(ask.conversation.as_deref(), Some("r1/0"));
    let request = harness.request();
    assert_eq!((request.agent_role.as_str(), &request.stop), ("write", &ask.stop));
    assert_eq!(request.tool_choice, ToolChoice::Named("add".to_owned()));
    assert_eq!(request.response_format, ResponseFormat::JsonSchema(schema));
    assert_eq!(request.tools[0].description, "adds");
    assert_eq!(request.messages[0].content, "What is 2 + 3?");
}

#[tokio::test]
async fn choices_have_different_seeds_and_the_first_keeps_its_seed() {
    let harness = Harness::replying(Reply::text("Five."));
    let answer = harness.post(Endpoint::Chat, &with(body(), json!({"n": 3, "seed": 5}))).await.ok();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 3);
    assert_eq!(answer["choices"][2]["index"], 2);
    // The prompt counts once.
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    let seeds: Vec<Option<u64>> = harness.backend.asks().iter().map(|ask| ask.seed).collect();
    assert_eq!(seeds[0], Some(5));
    assert!(seeds[1] != seeds[0] && seeds[2] != seeds[0] && seeds[1] != seeds[2]);
    assert_eq!(harness.record().answers.len(), 3);
}

#[tokio::test]
async fn streamed_choices_are_interleaved() {
    let harness = Harness::replying(Reply::text("Five it is."));
    let got = harness.post(Endpoint::Chat, &with(body(), json!({"n": 2, "stream": true}))).await;
    let chunks = got.chunks();
    for index in 0..2 {
        let of: Vec<Value> =
            chunks.iter().filter(|c| c["choices"][0]["index"] == index).cloned().collect();
        assert_eq!(joined(&of, "/choices/0/delta/content"), "Five it is.");
        assert_eq!(of.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn log_probabilities_align_with_token_ids() {
    let harness = Harness::replying(Reply::text("Größe: fünf."));
    let body = with(body(), json!({"logprobs": true, "top_logprobs": 2, "return_token_ids": true}));
    let answer = harness.post(Endpoint::Chat, &body).await.ok();
    let choice = &answer["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    let ids = choice["token_ids"].as_array().unwrap();
    assert_eq!(content.len(), ids.len());
    assert_eq!(ids.last().unwrap(), END, "including the end-of-turn token");
    assert_eq!(choice["logprobs"]["refusal"], Value::Null);
    let bytes: Vec<u8> = content[..content.len() - 1]
        .iter()
        .flat_map(|entry| entry["bytes"].as_array().unwrap())
        .map(|b| b.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), "Größe: fünf.");
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(content[0]["top_logprobs"][0]["token"], content[0]["token"]);
    let record = harness.record();
    let logprob = |i: usize| f64::from(record.answers[0].tokens[i].logprob);
    assert!(content.iter().enumerate().all(|(i, e)| e["logprob"] == logprob(i)));

    let ids_as_text = with(body, json!({"return_tokens_as_token_ids": true}));
    let answer = harness.post(Endpoint::Chat, &ids_as_text).await.ok();
    let first = &answer["choices"][0];
    let expected = format!("token_id:{}", first["token_ids"][0]);
    assert_eq!(first["logprobs"]["content"][0]["token"], expected);
}

#[tokio::test]
async fn overrides_replace_request_fields() {
    let harness = Harness::replying(Reply::text("Five.")).with(Overrides {
        temperature: Some(1.0),
        top_p: Some(1.0),
        token_ids: true,
        logprobs: true,
        any_model: true,
        default_max_tokens: Some(33),
        ..Overrides::default()
    });
    let body = with(body(), json!({"model": "auto", "temperature": 0.1, "top_p": 0.2, "top_k": 3}));
    let answer = harness.post(Endpoint::Chat, &body).await.ok();
    assert_eq!(answer["model"], "auto", "AutoGen compares it with the requested model");
    assert_eq!(answer["choices"][0]["token_ids"].as_array().unwrap().len(), 3);
    assert_eq!(answer["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 3);
    assert_eq!(answer["prompt_token_ids"].as_array().unwrap().len(), 5);
    let sampling = harness.ask().sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (1.0, 1.0, 0));
    assert_eq!(sampling.max_tokens, 33);
}

#[tokio::test]
async fn without_a_limit_the_context_is_the_limit() {
    let harness = Harness::new(Scripted::new(MODEL, |_| Reply::text("x")).with_context(77));
    harness.post(Endpoint::Chat, &body()).await.ok();
    assert_eq!(harness.ask().sampling.max_tokens, 77);
    let harness = Harness::new(Scripted::new(MODEL, |_| Reply::text("x")).with_context(77));
    harness
        .post(Endpoint::Chat, &with(body(), json!({"max_tokens": 1_000_000_000_000_u64})))
        .await
        .ok();
    assert_eq!(harness.ask().sampling.max_tokens, 77);
}

#[tokio::test]
async fn a_truncated_answer_has_finish_reason_length() {
    let harness = Harness::replying(Reply::text("Five, or so I was told."));
    let answer = harness.post(Endpoint::Chat, &with(body(), json!({"max_tokens": 2}))).await.ok();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 2);
}

/// A client sends a received message back in its history.
#[tokio::test]
async fn an_answer_can_be_sent_back() {
    let harness = Harness::replying(both());
    let first = with(body(), json!({"tools": tools()}));
    let message = harness.post(Endpoint::Chat, &first).await.ok()["choices"][0]["message"].clone();
    let mut second = first;
    let messages = second["messages"].as_array_mut().unwrap();
    messages.push(message.clone());
    for call in message["tool_calls"].as_array().unwrap() {
        messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "5"}));
    }
    harness.post(Endpoint::Chat, &second).await.ok();
    let Prompt::Chat(request) = &harness.backend.asks()[1].prompt else { panic!() };
    let record = &harness.records()[0];
    assert_eq!(request.messages[1].tool_calls, record.answers[0].tool_calls);
    assert_eq!(request.messages[3].name.as_deref(), Some("add"));
}

#[test]
fn models_are_listed() {
    let backend = Scripted::constant(MODEL, "");
    let list = protocol::models(&backend);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], MODEL);
    assert_eq!(list["data"][0]["object"], "model");
    assert_eq!(protocol::model(&backend, MODEL).unwrap(), list["data"][0]);
    assert_eq!(protocol::model(&backend, "gpt-9").unwrap_err().status, 404);
}
