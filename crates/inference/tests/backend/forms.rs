//! Constrained answers satisfy their constraint, even with random weights.

use leyden_core::{ChatRequest, FinishReason, Message, ResponseFormat, ToolChoice, ToolSpec};
use leyden_serve::backend::{Ask, Failure};
use serde_json::{Value, json};

use crate::common::{answer, backend, collect, failure, of};

/// A tool whose arguments are complete after a few tokens.
fn tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: "turns a light on or off".to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": false,
        }),
    }
}

fn with_tools(choice: ToolChoice) -> Ask {
    let request = ChatRequest {
        messages: vec![Message::user("light")],
        tools: vec![tool("lamp"), tool("torch")],
        tool_choice: choice,
        single_call: true,
        ..ChatRequest::default()
    };
    of(request, 150)
}

#[test]
fn a_required_call_parses() {
    let backend = backend();
    for seed in 0..4 {
        let ask = Ask {
            seed: Some(seed),
            stream: true,
            call_prefix: format!("call_{seed}_"),
            ..with_tools(ToolChoice::Required)
        };
        let collected = collect(&backend, ask);
        let answer = collected.answer.as_ref().unwrap();
        assert!(answer.constrained && answer.malformed_call.is_none(), "{answer:?}");
        let [call] = &answer.tool_calls[..] else { panic!("{answer:?}") };
        assert!(["lamp", "torch"].contains(&&*call.name));
        assert!(call.arguments["on"].is_boolean());
        assert_eq!(call.id, format!("call_{seed}_0"));
        assert_eq!(collected.calls(), answer.tool_calls, "streamed calls are the same");
        assert_eq!(collected.text(), answer.content);
        for token in &answer.tokens {
            assert!(token.logprob <= 0.0 && token.logprob.is_finite());
        }
    }
}

#[test]
fn a_named_tool_is_the_one_that_is_called() {
    let backend = backend();
    let answer = answer(&backend, with_tools(ToolChoice::Named("torch".to_owned())));
    let names: Vec<&str> = answer.tool_calls.iter().map(|call| &*call.name).collect();
    assert_eq!(names, ["torch"]);
}

#[test]
fn json_follows_its_schema() {
    let backend = backend();
    let schema = json!({
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green"]},
            "bright": {"type": "boolean"},
        },
        "required": ["colour", "bright"],
        "additionalProperties": false,
    });
    let request = ChatRequest {
        messages: vec![Message::user("colour")],
        response_format: ResponseFormat::JsonSchema(schema),
        ..ChatRequest::default()
    };
    for seed in 0..4 {
        let answer = answer(&backend, Ask { seed: Some(seed), ..of(request.clone(), 150) });
        assert_eq!(answer.finish, FinishReason::Stop, "{answer:?}");
        let value: Value = serde_json::from_str(&answer.content).unwrap();
        assert!(value["bright"].is_boolean());
        assert!(["red", "green"].contains(&value["colour"].as_str().unwrap()));
    }
}

/// An invalid schema fails only its own request, and the failure names it.
#[test]
fn an_invalid_schema_is_rejected() {
    let backend = backend();
    let request = ChatRequest {
        messages: vec![Message::user("x")],
        response_format: ResponseFormat::JsonSchema(json!({"type": "banana"})),
        ..ChatRequest::default()
    };
    let Failure::Invalid { param, message } = failure(&backend, of(request, 10)) else {
        panic!("not refused as invalid")
    };
    assert_eq!(param.as_deref(), Some("response_format"));
    assert!(!message.is_empty() && message.lines().count() == 1, "{message}");
}
