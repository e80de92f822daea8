//! Every token sequence that a grammar allows satisfies the request's constraint.

mod common;

use std::sync::Arc;

use common::{Draws, PLAIN, TRIMMING, allowed, calculator, format, json_request, request, tool};
use leyden_core::{ChatRequest, FinishReason, Message, ResponseFormat, ToolChoice, ToolSpec};
use leyden_text::{CHATML_TEMPLATE, ChatFormat, Grammar};
use serde_json::{Value, json};

/// Draws tokens until the end. Every other draw is from all allowed tokens; the others prefer
/// tokens that close something, or a uniform draw would write one string indefinitely.
fn walk(format: &ChatFormat, mut grammar: Grammar, seed: u64) -> Vec<u32> {
    let mut draws = Draws(seed);
    let mut ids = Vec::new();
    while !grammar.ended() {
        let all = allowed(&mut grammar);
        let closing =
            |id: &u32| format.tokenizer().token_bytes(*id).iter().any(|b| b"\"}]".contains(b));
        let some: Vec<u32> = all.iter().copied().filter(closing).collect();
        let pool = if some.is_empty() || draws.below(2) == 0 { &all } else { &some };
        let id = pool[draws.below(pool.len())];
        grammar.accept(id).unwrap();
        ids.push(id);
        assert!(ids.len() < 5_000, "{}", format.tokenizer().decode(&ids, true));
    }
    assert_eq!(allowed(&mut grammar), [format.end_of_turn().unwrap()]);
    assert_eq!(ids.iter().filter(|id| format.stop_ids().contains(id)).count(), 1);
    ids
}

/// Whether `value` is valid under `schema`, a part of `root`, for the keywords used here.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(keys) = schema else { return schema != &json!(false) };
    let sub = |schema: &Value, value: &Value| valid(root, schema, value);
    let any =
        |options: &Value| options.as_array().unwrap().iter().filter(|o| sub(o, value)).count();
    keys.iter().all(|(key, rule)| match key.as_str() {
        "$ref" => sub(root.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value),
        "type" => rule.as_array().unwrap_or(&vec![rule.clone()]).iter().any(|name| {
            match name.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
                _ => value.is_number(),
            }
        }),
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "anyOf" => any(rule) > 0,
        "oneOf" => any(rule) == 1,
        "allOf" => any(rule) == rule.as_array().unwrap().len(),
        "properties" => {
            let named = |(name, schema)| value.get(name).is_none_or(|value| sub(schema, value));
            rule.as_object().unwrap().iter().all(named)
        }
        "required" => {
            rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
        }
        "additionalProperties" => {
            let known = |name: &str| schema["properties"].get(name).is_some();
            let more = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
            more.into_iter().all(|(_, value)| sub(rule, value))
        }
        "items" => value.as_array().into_iter().flatten().all(|value| sub(rule, value)),
        "minItems" => value.as_array().is_none_or(|v| v.len() as u64 >= rule.as_u64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|v| v.len() as u64 <= rule.as_u64().unwrap()),
        "minLength" => text_length(value).is_none_or(|n| n >= rule.as_u64().unwrap()),
        "maxLength" => text_length(value).is_none_or(|n| n <= rule.as_u64().unwrap()),
        "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
        "pattern" => {
            assert_eq!(rule, "^[a-c]{2,4}$", "the only supported pattern");
            let text = value.as_str().unwrap();
            (2..=4).contains(&text.len()) && text.bytes().all(|b| (b'a'..=b'c').contains(&b))
        }
        "format" => {
            value.as_str().is_none_or(|date| date.len() == 10 && date.split('-').count() == 3)
        }
        "$defs" | "title" | "description" | "x-guidance" => true,
        other => panic!("{other}"),
    })
}

fn text_length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

/// Numbers such as 2e464 are valid JSON, but serde_json cannot represent them.
fn beyond_floats(error: &impl ToString) -> bool {
    error.to_string().contains("number out of range")
}

fn grammar(format: &ChatFormat, request: &ChatRequest) -> Grammar {
    format.grammar(request).unwrap().unwrap()
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y\"", 3, null]}},
               "required": ["a", "b"], "additionalProperties": false}),
        json!({"type": "array", "items": {"type": "number", "minimum": -2, "maximum": 7.5}, "minItems": 1, "maxItems": 3}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {
               "value": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
               "required": ["value", "next"], "additionalProperties": false}}}),
        json!({"type": "string", "pattern": "^[a-c]{2,4}$"}),
        json!({"type": "object", "properties": {"t": {"type": "string", "format": "date"},
               "s": {"type": "string", "minLength": 1, "maxLength": 5}}, "required": ["t", "s"],
               "additionalProperties": {"type": "integer"}}),
        json!({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
                         {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]}]}),
        json!({"type": ["integer", "null"], "title": "T", "description": "D", "x-guidance": {"lenient": 7}}),
        json!({"const": {"a": [1, "é🦀\n"]}}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                         {"properties": {"a": {"minimum": 3}}, "additionalProperties": false}]}),
        json!(true),
        json!({}),
    ]
}

#[test]
fn json_under_a_schema() {
    let format = format(CHATML_TEMPLATE);
    for schema in schemas() {
        let request = json_request(schema.clone());
        for seed in 0..12 {
            let ids = walk(&format, grammar(&format, &request), seed);
            let reply = format.reply(&request, &ids, FinishReason::Stop);
            let text = &reply.message.content;
            let value: Value = match serde_json::from_str(text) {
                Ok(value) => value,
                Err(error) if beyond_floats(&error) => continue,
                Err(error) => panic!("{text}: {error}"),
            };
            assert!(valid(&schema, &schema, &value), "{schema}: {value}");
            assert_eq!(text.trim(), text, "the answer ends with its last bracket");
        }
    }
}

#[test]
fn any_json_object() {
    let format = format(CHATML_TEMPLATE);
    let response_format = ResponseFormat::JsonObject;
    let request = ChatRequest { response_format, ..ChatRequest::default() };
    for seed in 0..30 {
        let ids = walk(&format, grammar(&format, &request), seed);
        let text = format.reply(&request, &ids, FinishReason::Stop).message.content;
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => assert!(value.is_object(), "{text}"),
            Err(error) => assert!(beyond_floats(&error), "{text}: {error}"),
        }
    }
}

fn tools() -> Vec<ToolSpec> {
    let tree = json!({"type": "object", "properties": {"node": {"$ref": "#/$defs/n"}}, "required": ["node"],
        "$defs": {"n": {"type": "object", "properties": {"leaf": {"type": "integer"}},
                        "required": ["leaf"], "additionalProperties": false}}});
    vec![
        calculator(),
        tool("odd \"name\"\n\u{7f}é", json!({})),
        tool("tree", tree.clone()),
        tool(
            "list",
            json!({"properties": {"l": {"items": {"type": "integer"}, "type": "array"}},
                            "additionalProperties": false}),
        ),
        tool("nothing", Value::Null),
    ]
}

#[test]
fn a_required_call_is_one_call_of_an_offered_tool() {
    for template in [CHATML_TEMPLATE, TRIMMING, PLAIN] {
        let format = format(template);
        let request = ChatRequest {
            tools: tools(),
            tool_choice: ToolChoice::Required,
            response_format: ResponseFormat::JsonObject,
            ..request(vec![Message::user("q")])
        };
        let mut called = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let ids = walk(&format, grammar(&format, &request), seed);
            let reply = format.reply(&request, &ids, FinishReason::Stop);
            if reply.malformed_call.as_ref().is_some_and(beyond_floats) {
                continue;
            }
            assert_eq!(reply.malformed_call, None, "{}", reply.message.content);
            let [call] = &reply.message.tool_calls[..] else { panic!("{reply:?}") };
            let tool = request.tools.iter().find(|tool| tool.name == call.name).unwrap();
            let schema = &tool.parameters;
            assert!(
                call.arguments.is_object() && valid(schema, schema, &call.arguments),
                "{call:?}"
            );
            let parsed = format.tool_format().parse(&reply.message.content, 0);
            assert_eq!(parsed.content, "");
            called.insert(call.name.clone());
        }
        assert_eq!(called.len(), request.tools.len(), "all tools are possible: {called:?}");
    }
}

#[test]
fn a_constrained_call_equals_the_formats_own_text() {
    for template in [CHATML_TEMPLATE, TRIMMING, PLAIN] {
        let format = format(template);
        let request = ChatRequest {
            tools: tools(),
            tool_choice: ToolChoice::Named("calculator".to_owned()),
            ..request(vec![Message::user("q")])
        };
        let arguments = json!({"expression": "12*7 \u{e9}"});
        let call =
            leyden_core::ToolCall { id: String::new(), name: "calculator".into(), arguments };
        let written = format.tool_format().write("", &[call]);
        let mut follow = grammar(&format, &request);
        for id in format.tokenizer().encode(&written).unwrap() {
            assert!(allowed(&mut follow).contains(&id));
            follow.accept(id).unwrap();
        }
        assert_eq!(allowed(&mut follow), [format.end_of_turn().unwrap()]);
        for seed in 0..5 {
            let ids = walk(&format, grammar(&format, &request), seed);
            let calls = format.reply(&request, &ids, FinishReason::Stop).message.tool_calls;
            assert_eq!(calls[0].name, "calculator");
        }
    }
}

#[test]
fn tags_that_are_control_tokens_are_written_as_such() {
    let json = common::tokenizer().to_json().unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    let id = json["model"]["vocab"].as_object().unwrap().len() + 50;
    let added = json["added_tokens"].as_array_mut().unwrap();
    for (offset, tag) in ["<tool_call>", "</tool_call>"].into_iter().enumerate() {
        let mut token = added[0].clone();
        token["id"] = json!(id + offset);
        token["content"] = json!(tag);
        added.push(token);
    }
    let tokenizer = leyden_text::Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    let tag = tokenizer.token_id("<tool_call>").unwrap();
    assert!(tokenizer.is_special(tag));
    let template = leyden_text::ChatTemplate::new(CHATML_TEMPLATE, None, None).unwrap();
    let format = ChatFormat::new(tokenizer, template);
    let request = ChatRequest { tool_choice: ToolChoice::Required, ..request(vec![]) };
    assert_eq!(allowed(&mut grammar(&format, &request)), [tag]);
    let ids = walk(&format, grammar(&format, &request), 1);
    assert_eq!(format.reply(&request, &ids, FinishReason::Stop).message.tool_calls.len(), 1);
}

#[test]
fn with_a_format_and_free_choice_the_model_calls_or_answers() {
    let format = format(CHATML_TEMPLATE);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}},
                        "required": ["n"], "additionalProperties": false});
    let request = ChatRequest {
        response_format: ResponseFormat::JsonSchema(schema),
        ..request(vec![Message::user("q")])
    };
    let (mut calls, mut answers) = (0, 0);
    for seed in 0..40 {
        let ids = walk(&format, grammar(&format, &request), seed);
        let reply = format.reply(&request, &ids, FinishReason::Stop);
        if reply.message.tool_calls.is_empty() {
            let value: Value = serde_json::from_str(&reply.message.content).unwrap();
            assert!(value["n"].is_number());
            answers += 1;
        } else {
            calls += 1;
        }
    }
    assert!(calls > 0 && answers > 0, "{calls} {answers}");
    let request = ChatRequest { tool_choice: ToolChoice::None, ..request };
    for seed in 0..10 {
        let ids = walk(&format, grammar(&format, &request), seed);
        assert!(format.reply(&request, &ids, FinishReason::Stop).message.content.starts_with('{'));
    }
}

#[test]
fn free_requests_have_no_grammar() {
    let format = format(CHATML_TEMPLATE);
    for tool_choice in [ToolChoice::Auto, ToolChoice::None] {
        let request = ChatRequest { tool_choice, ..request(vec![]) };
        assert!(format.grammar(&request).unwrap().is_none());
    }
}

#[test]
fn a_token_that_is_not_allowed_is_refused() {
    let format = format(CHATML_TEMPLATE);
    let request = json_request(json!({"const": 1}));
    let mut follow = grammar(&format, &request);
    assert_eq!(follow.allowed().unwrap().len(), format.tokenizer().vocab_size().div_ceil(32));
    let one = format.tokenizer().encode("1").unwrap()[0];
    for id in [format.end_of_turn().unwrap(), one + 1, 1_000_000] {
        let mut follow = grammar(&format, &request);
        let error = follow.accept(id).unwrap_err().to_string();
        assert!(error.contains("not allowed") || error.contains("out of range"), "{error}");
    }
    follow.accept(one).unwrap();
    follow.accept(format.end_of_turn().unwrap()).unwrap();
    assert!(follow.ended());
    assert!(follow.accept(one).is_err());
}

/// Grammars of one format share its compiled vocabulary.
#[test]
fn grammars_work_in_parallel() {
    let format = format(CHATML_TEMPLATE);
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let format = Arc::clone(&format);
            std::thread::spawn(move || {
                let request = json_request(schemas().swap_remove(seed as usize));
                let ids = walk(&format, grammar(&format, &request), seed);
                assert_eq!(ids, walk(&format, grammar(&format, &request), seed));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
