//! Answers that must have a form have it, even those of random weights.

use leyden_core::{ChatRequest, FinishReason, Message, ResponseFormat, ToolChoice, ToolSpec};
use leyden_serve::backend::{Ask, Failure};
use serde_json::{Value, json};

use crate::common::{answer, backend, failure, hear, of};

/// A tool whose arguments are soon complete, whatever is written.
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
        let heard = hear(&backend, ask);
        let answer = heard.answer.as_ref().unwrap();
        assert!(answer.constrained && answer.malformed_call.is_none(), "{answer:?}");
        let [call] = &answer.tool_calls[..] else { panic!("{answer:?}") };
        assert!(["lamp", "torch"].contains(&&*call.name));
        assert!(call.arguments["on"].is_boolean());
        assert_eq!(call.id, format!("call_{seed}_0"));
        assert_eq!(heard.calls(), answer.tool_calls, "streamed, they are the same");
        assert_eq!(heard.text(), answer.content);
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

/// A schema that is none fails its own request, by name, and nothing else.
#[test]
fn a_schema_that_is_none_is_refused() {
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
