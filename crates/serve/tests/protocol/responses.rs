//! `/v1/responses`.

use leyden_core::{Message, ResponseFormat, Speaker, ToolChoice};
use leyden_serve::backend::Prompt;
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::call::{Endpoint, Overrides};
use serde_json::{Value, json};

use crate::harness::{Harness, MODEL, with};

const HERE: Endpoint = Endpoint::Responses;

fn body() -> Value {
    json!({"model": MODEL, "input": "2 + 3?"})
}

fn tools() -> Value {
    json!([{"type": "function", "name": "add", "description": "adds", "strict": true,
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}])
}

fn both() -> Reply {
    let calls = vec![("add".to_owned(), json!({"a": 1})), ("add".to_owned(), json!({"a": 2}))];
    Reply::Say { content: "I add.".to_owned(), calls }
}

#[tokio::test]
async fn an_answer_has_every_field_that_clients_read() {
    let harness = Harness::replying(Reply::text("Five."));
    let asked = json!({"instructions": "Be brief.", "temperature": 0.5, "metadata": {"k": "v"},
                       "reasoning": {"effort": "low"}, "max_output_tokens": 90});
    let mut answer = harness.post(HERE, &with(body(), asked)).await.ok();
    assert!(answer["id"].as_str().unwrap().starts_with("resp_"));
    assert!(answer["output"][0]["id"].as_str().unwrap().starts_with("msg_"));
    for volatile in ["id", "created_at", "completed_at"] {
        answer.as_object_mut().unwrap().remove(volatile).unwrap();
    }
    answer["output"][0].as_object_mut().unwrap().remove("id");
    let expected = json!({
        "object": "response",
        "model": MODEL,
        "background": false,
        "instructions": "Be brief.",
        "max_output_tokens": 90,
        "max_tool_calls": null,
        "metadata": {"k": "v"},
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": "low"},
        "service_tier": "default",
        "store": true,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": null,
        "status": "completed",
        "error": null,
        "incomplete_details": null,
        "output": [{
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Five.", "annotations": [], "logprobs": []}],
        }],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 10,
        },
    });
    assert_eq!(answer, expected);
    let request = harness.request();
    assert_eq!(request.messages, [Message::system("Be brief."), Message::user("2 + 3?")]);
}

/// The kinds of all events, consecutive duplicates removed.
fn kinds(events: &[(String, Value)]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    kinds.dedup();
    kinds.iter().map(|kind| kind.strip_prefix("response.").unwrap()).collect()
}

#[tokio::test]
async fn the_events_of_a_text() {
    let events = Harness::replying(Reply::text("Five it is."))
        .post(HERE, &with(body(), json!({"stream": true})))
        .await
        .events();
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(kinds(&events), expected);
    let id = &events[0].1["response"]["id"];
    let mut text = String::new();
    for (i, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(i)));
        if let Some(delta) = data["delta"].as_str() {
            text.push_str(delta);
        }
        if name.starts_with("response.output_text") {
            // The `openai` stream helper fails without this list.
            assert_eq!(data["logprobs"], json!([]));
        }
        if let Some(response) = data.get("response") {
            assert_eq!(response["id"], *id);
        }
    }
    assert_eq!(text, "Five it is.");
    assert_eq!(events[0].1["response"]["status"], "in_progress");
    assert_eq!(events[0].1["response"]["output"], json!([]));
    let last = &events.last().unwrap().1["response"];
    assert_eq!(last["output"][0]["content"][0]["text"], text);
    assert_eq!(last["usage"]["output_tokens"], 4);
}

#[tokio::test]
async fn the_events_of_calls() {
    for backend in
        [Scripted::new(MODEL, |_| both()), Scripted::new(MODEL, |_| both()).without_deltas()]
    {
        let harness = Harness::new(backend);
        let wanted = json!({"stream": true, "tools": tools()});
        let events = harness.post(HERE, &with(body(), wanted)).await.events();
        let call = [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ];
        let mut expected = vec![
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
        ];
        expected.extend(call);
        expected.extend(call);
        expected.extend(["output_text.done", "content_part.done", "output_item.done", "completed"]);
        assert_eq!(kinds(&events), expected);
        let response = &events.last().unwrap().1["response"];
        let output = response["output"].as_array().unwrap();
        assert_eq!(output.len(), 3);
        for (name, data) in &events {
            let Some(index) = data["output_index"].as_u64() else { continue };
            let item = &output[index as usize];
            if data.get("item_id").is_some() {
                assert_eq!(data["item_id"], item["id"], "{name}");
            }
            if name == "response.output_item.done" {
                assert_eq!(data["item"], *item);
            }
            if name == "response.function_call_arguments.delta" {
                assert_eq!(data["delta"], item["arguments"]);
            }
            if name == "response.output_item.added" && item["type"] == "function_call" {
                let before = with(item.clone(), json!({"arguments": "", "status": "in_progress"}));
                assert_eq!(data["item"], before);
            }
        }
        assert_eq!(harness.recorded(), *response);
    }
}

#[tokio::test]
async fn an_empty_answer_is_an_empty_message() {
    let harness = Harness::replying(Reply::text(""));
    let whole = harness.post(HERE, &body()).await.ok();
    assert_eq!(whole["output"][0]["content"][0]["text"], "");
    let events = harness.post(HERE, &with(body(), json!({"stream": true}))).await.events();
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(kinds(&events), expected);
}

#[tokio::test]
async fn a_conversation_continues_from_an_earlier_response() {
    let harness = Harness::replying(both());
    let first = with(body(), json!({"tools": tools(), "instructions": "Once."}));
    let first = harness.post(HERE, &first).await.ok();
    let outputs: Vec<Value> = first["output"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "function_call")
        .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "5"}))
        .collect();
    let more = json!({"previous_response_id": first["id"], "input": outputs, "tools": tools()});
    let second = harness.post(HERE, &with(body(), more.clone())).await.ok();
    assert_eq!(second["previous_response_id"], first["id"]);
    let messages = |i: usize| match &harness.backend.asks()[i].prompt {
        Prompt::Chat(request) => request.messages.clone(),
        other => panic!("{other:?}"),
    };
    use Speaker::{Assistant, Tool, User};
    let seen = messages(1);
    assert_eq!(seen.iter().map(|m| m.role).collect::<Vec<_>>(), [User, Assistant, Tool, Tool]);
    assert_eq!(seen[1].content, "I add.");
    assert_eq!(seen[1].tool_calls, harness.records()[0].answers[0].tool_calls);

    // Continuing once more gives the same conversation as sending all items.
    let third = json!({"previous_response_id": second["id"], "input": "Thanks."});
    harness.post(HERE, &with(body(), third)).await.ok();
    let mut items = vec![json!({"role": "user", "content": "2 + 3?"})];
    items.extend(first["output"].as_array().unwrap().clone());
    items.extend(outputs);
    items.extend(second["output"].as_array().unwrap().clone());
    items.push(json!({"role": "user", "content": [{"type": "input_text", "text": "Thanks."}]}));
    harness.post(HERE, &with(body(), json!({ "input": items }))).await.ok();
    assert_eq!(messages(2), messages(3));
    assert_eq!(messages(2).len(), 6);
}

#[tokio::test]
async fn an_unstored_response_cannot_be_continued() {
    let harness = Harness::replying(Reply::text("Five."));
    let first = harness.post(HERE, &with(body(), json!({"store": false}))).await.ok();
    assert_eq!(first["store"], false);
    for id in [first["id"].clone(), "resp_unknown".into()] {
        let got = harness.post(HERE, &with(body(), json!({"previous_response_id": id}))).await;
        let expected = (400, "previous_response_not_found".into(), "previous_response_id".into());
        assert_eq!(got.error(), expected);
    }
}

#[tokio::test]
async fn a_truncated_answer_is_incomplete_unless_overridden() {
    let body = with(body(), json!({"max_output_tokens": 2}));
    for stream in [false, true] {
        let body = with(body.clone(), json!({"stream": stream}));
        let harness = Harness::replying(Reply::text("Five, they say."));
        let got = harness.post(HERE, &body).await;
        let response = harness.recorded();
        assert_eq!(response["status"], "incomplete");
        assert_eq!(response["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(response["output"][0]["status"], "incomplete");
        if stream {
            assert_eq!(got.events().last().unwrap().0, "response.incomplete");
        }
        let overrides = Overrides { truncated_as_completed: true, ..Overrides::default() };
        let harness = Harness::replying(Reply::text("Five, they say.")).with(overrides);
        let got = harness.post(HERE, &body).await;
        let record = harness.record();
        assert_eq!(record.response.value()["status"], "completed");
        assert_eq!(record.response.value()["incomplete_details"], Value::Null);
        assert_eq!(record.answers[0].finish, leyden_core::FinishReason::Length);
        if stream {
            assert_eq!(got.events().last().unwrap().0, "response.completed");
        }
    }
}

#[tokio::test]
async fn log_probabilities_and_token_ids_on_request() {
    let wanted = json!({"include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
                        "top_logprobs": 2, "return_token_ids": true, "stream": true});
    let harness = Harness::replying(Reply::text("Five it is."));
    let events = harness.post(HERE, &with(body(), wanted)).await.events();
    let response = &events.last().unwrap().1["response"];
    let logprobs = response["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), response["token_ids"].as_array().unwrap().len());
    assert!(response["prompt_token_ids"].is_array());
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let streamed: Vec<Value> = events
        .iter()
        .filter(|(name, _)| name == "response.output_text.delta")
        .flat_map(|(_, data)| data["logprobs"].as_array().unwrap().clone())
        .collect();
    assert_eq!(streamed, logprobs[..streamed.len()]);
    assert_eq!(streamed.len(), 3);
}

#[tokio::test]
async fn the_request_is_passed_to_the_backend() {
    let harness = Harness::replying(Reply::text("{}"));
    let schema = json!({"type": "object"});
    let wanted = json!({
        "tools": tools(), "tool_choice": {"type": "function", "name": "add"},
        "parallel_tool_calls": false, "top_p": 0.5,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": true},
                 "verbosity": "low"},
    });
    harness.post(HERE, &with(body(), wanted)).await.ok();
    let request = harness.request();
    assert_eq!(request.tool_choice, ToolChoice::Named("add".to_owned()));
    assert_eq!(request.response_format, ResponseFormat::JsonSchema(schema));
    assert!(request.single_call);
    assert_eq!(harness.ask().sampling.top_p, 0.5);
}

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    let cases = [
        (json!({"input": null}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 7}), "input"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "custom", "name": "x"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "function", "function": {"name": "x"}}]}), "tools[0].name"),
        (json!({"background": true}), "background"),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"prompt": {"id": "p"}}), "prompt"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"include": ["everything"]}), "include[0]"),
        (json!({"text": {"format": {"type": "grammar"}}}), "text.format.type"),
        (json!({"n": 2}), "n"),
        (json!({"messages": []}), "messages"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"context_management": [{"type": "compaction"}]}), "context_management"),
    ];
    for (extra, param) in cases {
        let harness = Harness::replying(Reply::text("x"));
        let (status, _, named) = harness.post(HERE, &with(body(), extra.clone())).await.error();
        assert_eq!((status, named), (400, param.into()), "{extra}");
    }
}
