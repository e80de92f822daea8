//! Anthropic's `/v1/messages`.

use leyden_core::{Message, ResponseFormat, Speaker, ToolChoice};
use leyden_serve::backend::stub::{Reply, Scripted};
use leyden_serve::call::{Endpoint, Overrides};
use serde_json::{Value, json};

use crate::harness::{Harness, MODEL, with};

const HERE: Endpoint = Endpoint::Messages;

fn body() -> Value {
    json!({"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "2 + 3?"}]})
}

fn tools() -> Value {
    json!([{"name": "add", "description": "adds", "cache_control": {"type": "ephemeral"},
            "input_schema": {"type": "object", "properties": {"a": {"type": "number"}}}}])
}

fn both() -> Reply {
    Reply::Say { content: "I add.".to_owned(), calls: vec![("add".to_owned(), json!({"a": 1}))] }
}

#[tokio::test]
async fn an_answer_has_every_field_that_clients_read() {
    let harness = Harness::replying(both());
    let mut answer = harness.post(HERE, &with(body(), json!({"tools": tools()}))).await.ok();
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert!(answer["content"][1]["id"].as_str().unwrap().starts_with("toolu_"));
    answer.as_object_mut().unwrap().remove("id");
    answer["content"][1].as_object_mut().unwrap().remove("id");
    let expected = json!({
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [
            {"type": "text", "text": "I add.", "citations": null},
            {"type": "tool_use", "name": "add", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": null,
        "usage": {
            "input_tokens": 3,
            "output_tokens": 12,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn the_events_of_a_stream() {
    for backend in
        [Scripted::new(MODEL, |_| both()), Scripted::new(MODEL, |_| both()).without_deltas()]
    {
        let harness = Harness::new(backend);
        let wanted = json!({"tools": tools(), "stream": true});
        let events = harness.post(HERE, &with(body(), wanted)).await.events();
        let mut kinds: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        kinds.dedup();
        let block = ["content_block_start", "content_block_delta", "content_block_stop"];
        let mut expected = vec!["message_start", "ping"];
        expected.extend(block);
        expected.extend(block);
        expected.extend(["message_delta", "message_stop"]);
        assert_eq!(kinds, expected);
        assert!(events.iter().all(|(name, data)| data["type"] == *name));

        let whole = harness.recorded();
        let start = &events[0].1["message"];
        assert_eq!(start["id"], whole["id"]);
        assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &Value::Null));
        assert_eq!(start["usage"]["input_tokens"], 3);
        let deltas = |index: usize, field: &str| -> String {
            let of = |(_, data): &(String, Value)| {
                let here = data["index"] == index;
                here.then(|| data["delta"][field].as_str().unwrap_or_default().to_owned())
            };
            events.iter().filter_map(of).collect()
        };
        assert_eq!(deltas(0, "text"), "I add.");
        let input: Value = serde_json::from_str(&deltas(1, "partial_json")).unwrap();
        assert_eq!(input, whole["content"][1]["input"]);
        let started: Vec<&Value> = events
            .iter()
            .filter(|(name, _)| name == "content_block_start")
            .map(|(_, data)| &data["content_block"])
            .collect();
        assert_eq!(*started[1], with(whole["content"][1].clone(), json!({"input": {}})));
        let (_, delta) = &events[events.len() - 2];
        assert_eq!(delta["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
        assert_eq!(delta["usage"], whole["usage"]);
    }
}

#[tokio::test]
async fn stop_reasons() {
    let cases = [
        (Reply::text("Five."), json!({}), "end_turn", Value::Null),
        (Reply::text("Five, they say."), json!({"max_tokens": 2}), "max_tokens", Value::Null),
        (
            Reply::text("Five. END and more"),
            json!({"stop_sequences": ["END"]}),
            "stop_sequence",
            "END".into(),
        ),
    ];
    for (reply, extra, reason, sequence) in cases {
        let answer = Harness::replying(reply).post(HERE, &with(body(), extra)).await.ok();
        assert_eq!((&answer["stop_reason"], &answer["stop_sequence"]), (&reason.into(), &sequence));
        assert!(!answer["content"][0]["text"].as_str().unwrap().contains("END"));
    }
}

#[tokio::test]
async fn blocks_become_messages() {
    let harness = Harness::replying(Reply::text("Done."));
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "2 + 3?"}, {"type": "text", "text": "And 1 + 1?"}]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 2}},
            {"type": "tool_use", "id": "t2", "name": "sub", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "no"}], "is_error": true},
            {"type": "tool_result", "tool_use_id": "t1", "content": "5"},
            {"type": "text", "text": "Go on."},
        ]},
    ]);
    let system = json!([{"type": "text", "text": "Be"}, {"type": "text", "text": "brief.",
                         "cache_control": {"type": "ephemeral"}}]);
    let wanted = json!({"messages": messages, "system": system, "tools": tools(),
                        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}});
    harness.post(HERE, &with(body(), wanted)).await.ok();
    let request = harness.request();
    use Speaker::{Assistant, System, Tool, User};
    let roles: Vec<Speaker> = request.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [System, User, Assistant, Tool, Tool, User]);
    assert_eq!(request.messages[0], Message::system("Be\nbrief."));
    assert_eq!(request.messages[1].content, "2 + 3?\nAnd 1 + 1?");
    assert_eq!(request.messages[2].tool_calls[0].arguments, json!({"a": 2}));
    assert_eq!(request.messages[3].name.as_deref(), Some("sub"));
    assert_eq!(request.messages[4].content, "5");
    assert_eq!((request.tool_choice.clone(), request.single_call), (ToolChoice::Required, true));
    assert_eq!(request.tools[0].parameters["properties"]["a"]["type"], "number");
}

#[tokio::test]
async fn the_answer_can_be_sent_back() {
    let harness = Harness::replying(both());
    let content =
        harness.post(HERE, &with(body(), json!({"tools": tools()}))).await.ok()["content"].clone();
    let messages = json!([
        body()["messages"][0],
        {"role": "assistant", "content": content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": content[1]["id"], "content": "5"}]},
    ]);
    harness.post(HERE, &with(body(), json!({"messages": messages, "tools": tools()}))).await.ok();
    let leyden_serve::backend::Prompt::Chat(request) = &harness.backend.asks()[1].prompt else {
        panic!()
    };
    assert_eq!(request.messages[1].tool_calls, harness.records()[0].answers[0].tool_calls);
    assert_eq!(request.messages[1].content, "I add.");
}

#[tokio::test]
async fn output_schema_and_sampling_overrides() {
    let overrides = Overrides { temperature: Some(1.0), token_ids: true, ..Overrides::default() };
    let harness = Harness::replying(Reply::text("{}")).with(overrides);
    let schema = json!({"type": "object"});
    let format = json!({"type": "json_schema", "schema": schema});
    let wanted = json!({"output_config": {"format": format, "effort": "low"}, "temperature": 0.3,
                        "top_k": 5, "thinking": {"type": "disabled"}, "metadata": {"user_id": "u"}});
    let answer = harness.post(HERE, &with(body(), wanted)).await.ok();
    assert_eq!(harness.request().response_format, ResponseFormat::JsonSchema(schema));
    let sampling = harness.ask().sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.max_tokens), (1.0, 5, 100));
    assert_eq!(answer["token_ids"].as_array().unwrap().len(), 2);
    assert!(answer["prompt_token_ids"].is_array());
}

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    let block = |kind: &str| json!([{"role": "user", "content": [{"type": kind}]}]);
    let cases = [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": block("image")}), "messages[0].content[0].type"),
        (json!({"messages": block("document")}), "messages[0].content[0].type"),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            "messages[1].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}),
            "messages[0].content[0].tool_use_id",
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "tools[0].type",
        ),
        (
            json!({"tools": [{"name": "a", "input_schema": {"type": "array"}}]}),
            "tools[0].input_schema.type",
        ),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
        (json!({"tool_choice": {"type": "tool", "name": "x"}}), "tool_choice"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), "thinking"),
        (json!({"mcp_servers": [{"url": "x"}]}), "mcp_servers"),
        (json!({"container": "c"}), "container"),
        (json!({"frequency_penalty": 0}), "frequency_penalty"),
    ];
    for (extra, param) in cases {
        let got =
            Harness::replying(Reply::text("x")).post(HERE, &with(body(), extra.clone())).await;
        assert_eq!(got.status, 400, "{extra}");
        let error = got.json();
        assert_eq!(
            (&error["type"], &error["error"]["type"]),
            (&json!("error"), &json!("invalid_request_error"))
        );
        assert!(
            error["error"]["message"].as_str().unwrap().contains(&format!("`{param}`")),
            "{error}"
        );
    }
    let got = Harness::replying(Reply::text("x"))
        .post(HERE, &with(body(), json!({"model": "claude"})))
        .await;
    assert_eq!((got.status, &got.json()["error"]["type"]), (404, &json!("not_found_error")));
}
