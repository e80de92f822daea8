//! Unsupported fields of chat completions, and accepted ones without effect.

use leyden_serve::backend::Failure;
use leyden_serve::backend::stub::Reply;
use leyden_serve::call::Endpoint;
use serde_json::{Value, json};

use crate::chat::{body, tools};
use crate::harness::{Harness, with};

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    let cases = [
        (json!({"model": null}), "model"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1000}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": -5}), "max_completion_tokens"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": ["a", 7]}), "stop[1]"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"frequency_penalty": 0.1}), "frequency_penalty"),
        (json!({"presence_penalty": 1}), "presence_penalty"),
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"functions": []}), "functions"),
        (json!({"function_call": "auto"}), "function_call"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"prediction": {}}), "prediction"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"service_tier": "priority"}), "service_tier"),
        (json!({"min_p": 0.1}), "min_p"),
        (json!({"ignore_eos": 1}), "ignore_eos"),
        (json!({"ignore_eos": true, "tools": tools()}), "ignore_eos"),
        (json!({"ignore_eos": true, "response_format": {"type": "json_object"}}), "ignore_eos"),
        (json!({"mirostat": 2}), "mirostat"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
            "tools[0].function.name",
        ),
        (json!({"tools": [tools()[0], tools()[0]]}), "tools[1]"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": tools(), "tool_choice": "sometimes"}), "tool_choice"),
        (
            json!({"tools": tools(), "tool_choice": {"type": "function", "function": {"name": "sub"}}}),
            "tool_choice",
        ),
        (json!({"tools": tools(), "tool_choice": {"type": "allowed_tools"}}), "tool_choice.type"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 7}}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"stream_options": {"continuous_usage_stats": true}}),
            "stream_options.continuous_usage_stats",
        ),
    ];
    for (extra, param) in cases {
        let harness = Harness::replying(Reply::text("Five."));
        let got = harness.post(Endpoint::Chat, &with(body(), extra.clone())).await;
        let (status, _, named) = got.error();
        assert_eq!((status, named), (400, param.into()), "{extra}");
        assert!(got.json()["error"]["message"].as_str().unwrap().contains(param), "{extra}");
        assert!(harness.backend.asks().is_empty());
        assert_eq!(harness.record().status, 400);
        assert!(matches!(harness.record().failure, Some(Failure::Invalid { .. })));
    }
}

#[tokio::test]
async fn an_invalid_schema_is_refused() {
    let cases = [
        json!("text"),
        json!({"type": "list"}),
        json!({"type": "object", "properties": {"a": 5}}),
        json!({"type": "object", "properties": [1]}),
        json!({"type": "object", "required": "a"}),
        json!({"type": "object", "properties": {"a": {"anyOf": {}}}}),
        json!({"type": "object", "properties": {"a": {"items": {"type": ["string", "text"]}}}}),
        json!({"type": "array"}),
    ];
    for parameters in cases {
        let tool =
            json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}]);
        let got = Harness::replying(Reply::text(""))
            .post(Endpoint::Chat, &with(body(), json!({"tools": tool})))
            .await;
        let (status, _, param) = got.error();
        assert_eq!(status, 400);
        assert!(param.as_str().unwrap().starts_with("tools[0].function.parameters"), "{param}");
    }
}

#[tokio::test]
async fn fields_without_effect_are_accepted() {
    let harness = Harness::replying(Reply::text("Five."));
    let harmless = json!({
        "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
        "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "reasoning_effort": "low",
        "verbosity": "low", "safety_identifier": "s", "prompt_cache_key": "k",
        "modalities": ["text"], "tool_choice": "auto", "parallel_tool_calls": true,
        "stream_options": null, "tools": [], "stop": [], "mirostat": null, "n": 1.0,
        "response_format": {"type": "text"}, "top_k": -1, "min_p": 0,
    });
    harness.post(Endpoint::Chat, &with(body(), harmless)).await.ok();
    assert_eq!(harness.ask().sampling.top_k, 0);
}

#[tokio::test]
async fn unknown_models_and_invalid_bodies() {
    let harness = Harness::replying(Reply::text("Five."));
    let got = harness.post(Endpoint::Chat, &with(body(), json!({"model": "gpt-9"}))).await;
    assert_eq!(got.error(), (404, "model_not_found".into(), "model".into()));
    for text in ["", "[]", "7", "{\"model\":", "{\"model\": \"\u{1}\"}", "nonsense"] {
        let got = harness.send(Endpoint::Chat, text).await;
        assert_eq!(got.error(), (400, Value::Null, Value::Null), "{text:?}");
    }
    let got = harness.send(Endpoint::Chat, &b"{\"model\": \"\xff\"}"[..]).await;
    assert_eq!(got.status, 400);
}
