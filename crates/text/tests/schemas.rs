//! Invalid schemas are rejected with their location; hostile ones are bounded.

mod common;

use common::{Draws, allowed, calculator, format, json_request, request, tool};
use leyden_core::{ChatRequest, ToolChoice};
use leyden_text::{CHATML_TEMPLATE, ChatFormat, TextError};
use serde_json::{Value, json};

fn refusal(format: &ChatFormat, request: &ChatRequest) -> String {
    match format.grammar(request) {
        Err(error @ TextError::Constraint { .. }) => error.to_string(),
        other => panic!("{request:?}: {other:?}"),
    }
}

#[test]
fn unsupported_constraints_are_reported() {
    let format = format(CHATML_TEMPLATE);
    let none = ChatRequest { tool_choice: ToolChoice::Required, ..ChatRequest::default() };
    assert!(refusal(&format, &none).starts_with("tool_choice cannot be enforced"));
    let unknown = ChatRequest { tool_choice: ToolChoice::Named("f".into()), ..request(vec![]) };
    assert!(refusal(&format, &unknown).contains("`f`"));
    for (parameters, word) in [
        (json!({"type": "string"}), "object"),
        (json!([1]), "a list"),
        (json!({"properties": {"x": {"type": "text"}}}), "/properties/x/type: `text`"),
    ] {
        let bad = ChatRequest {
            tools: vec![calculator(), tool("g", parameters)],
            tool_choice: ToolChoice::Required,
            ..ChatRequest::default()
        };
        let error = refusal(&format, &bad);
        assert!(error.contains("tool `g`") && error.contains(word), "{error}");
    }
}

#[test]
fn invalid_schemas_are_rejected_with_their_location() {
    let format = format(CHATML_TEMPLATE);
    let long = "é".repeat(200);
    for (schema, word) in [
        (json!(3), "not a number"),
        (json!([]), "not a list"),
        (json!("object"), "not a text"),
        (Value::Null, "not null"),
        (json!({"type": "objekt"}), "/type: `objekt`"),
        (json!({"type": []}), "/type"),
        (json!({"type": ["string", 4]}), "a number is not a type"),
        (json!({"type": long}), "/type"),
        (json!({"properties": []}), "/properties: expected schemas by name"),
        (json!({"properties": {"a": {"items": 4}}}), "/properties/a/items"),
        (json!({"required": "a"}), "/required"),
        (json!({"required": [1]}), "/required"),
        (json!({"enum": []}), "/enum"),
        (json!({"enum": long}), "/enum"),
        (json!({"anyOf": {}}), "/anyOf"),
        (json!({"anyOf": [{"type": "x"}]}), "/anyOf/*/type"),
        (json!({"anyOf": []}), "empty"),
        (json!({"minLength": -1}), "/minLength"),
        (json!({"minimum": "0"}), "/minimum"),
        (json!({"pattern": 3}), "/pattern"),
        (json!({"pattern": "("}), "regex"),
        (json!({"type": "string", "pattern": "(?=a)b"}), ""),
        (json!({"type": "string", "format": "shoe-size"}), "shoe-size"),
        (json!({"not": {}}), "/not"),
        (json!({"uniqueItems": true}), "/uniqueItems"),
        (json!({"$ref": "#/$defs/absent"}), "absent"),
        (json!({"$ref": "http://127.0.0.1:9/x.json"}), ""),
        (json!({"$ref": "file:///etc/passwd"}), ""),
        (json!({"type": "integer", "minimum": 5, "maximum": 4}), ""),
        (json!({"type": "number", "multipleOf": 0}), ""),
        (json!({"allOf": [{"type": "string"}, {"type": "integer"}]}), "incompatible"),
        (json!(false), "false"),
        (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "`oneOf`"),
    ] {
        let error = refusal(&format, &json_request(schema.clone()));
        assert!(error.starts_with("the schema of response_format cannot be enforced"), "{error}");
        assert!(error.contains(word), "{schema}: {error}");
        assert!(!error.contains('\n') && error.len() < 400, "{error}");
    }
}

/// Schemas designed to take time, memory or stack: an answer or an error, quickly.
#[test]
fn hostile_schemas_are_bounded() {
    let format = format(CHATML_TEMPLATE);
    let nested = |depth: usize| {
        (0..depth).fold(
            json!({"type": "integer"}),
            |inner, _| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]}),
        )
    };
    let lists = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"items": inner}));
    let names = |n: usize| -> Vec<String> { (0..n).map(|i| format!("value {i}")).collect() };
    let wide = |n: usize| -> Value {
        names(n).into_iter().map(|name| (name, json!({"type": "string"}))).collect()
    };
    let chain = |key: &str, n: usize| -> serde_json::Map<String, Value> {
        let next = |i: usize| json!({"$ref": format!("#/$defs/d{}", i + 1)});
        let link = |i: usize| match key {
            "$ref" => next(i),
            "properties" => json!({"properties": {"x": next(i)}}),
            _ => json!({"allOf": [next(i), {"type": "object"}]}),
        };
        let end = std::iter::once((format!("d{n}"), json!({"type": "object"})));
        (0..n).map(|i| (format!("d{i}"), link(i))).chain(end).collect()
    };
    let doubling: serde_json::Map<String, Value> = (0..30)
        .map(|i| {
            let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
            (
                format!("d{i}"),
                json!({"type": "object", "properties": {"l": next, "r": next},
                                     "allOf": [next, next]}),
            )
        })
        .chain([("d30".to_owned(), json!({"type": "object"}))])
        .collect();
    for (what, schema) in [
        ("nested", nested(40)),
        ("nested too deep", nested(200)),
        ("lists", lists(120)),
        ("enum", json!({"enum": names(15_000)})),
        ("enum too large", json!({"enum": names(100_000)})),
        ("wide", json!({"type": "object", "properties": wide(1_900)})),
        (
            "wide and required",
            json!({"type": "object", "properties": wide(500), "required": names(500)}),
        ),
        ("wide 6000", json!({"type": "object", "properties": wide(6_000)})),
        (
            "any of wide",
            json!({"anyOf": [{"type": "object", "properties": wide(900)}, {"type": "object", "properties": wide(950)}]}),
        ),
        (
            "alike",
            json!({"anyOf": (0..300).map(|i| json!({"type": "object", "properties": wide(6), "required": [format!("value {}", i % 6)]})).collect::<Vec<_>>()}),
        ),
        ("const", json!({"const": lists(100)})),
        ("chain too long", json!({"$ref": "#/$defs/d0", "$defs": chain("$ref", 4_000)})),
        ("chain", json!({"$ref": "#/$defs/d0", "$defs": chain("$ref", 1_900)})),
        ("chain in objects", json!({"$ref": "#/$defs/d0", "$defs": chain("properties", 900)})),
        ("chain of all", json!({"$ref": "#/$defs/d0", "$defs": chain("allOf", 600)})),
        ("self", json!({"$ref": "#"})),
        (
            "mutual",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ),
        (
            "endless",
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        ),
        ("any of itself", json!({"anyOf": [{"$ref": "#"}, {"type": "null"}]})),
        ("all of itself", json!({"allOf": [{"$ref": "#"}], "type": "object"})),
        ("doubling", json!({"$ref": "#/$defs/d0", "$defs": doubling})),
        ("many items", json!({"type": "array", "minItems": 1_000_000_000})),
        (
            "many items of a kind",
            json!({"type": "array", "items": {"type": "object"}, "minItems": 3_000, "maxItems": 4_000_000_000u64}),
        ),
        ("long text", json!({"type": "string", "minLength": 1_000_000_000})),
        ("text up to", json!({"type": "string", "maxLength": u64::MAX})),
        ("many properties", json!({"type": "object", "minProperties": 1_000_000})),
        ("powers", json!({"type": "string", "pattern": "^((((a{99}){99}){99}){99})$"})),
        (
            "parentheses",
            json!({"type": "string", "pattern": format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000))}),
        ),
        ("backtracking", json!({"type": "string", "pattern": "^(a+)+$"})),
        (
            "two patterns",
            json!({"allOf": [{"type": "string", "pattern": "(.*a.*b.*c){20}"}, {"type": "string", "pattern": "(.*c.*b.*a){20}"}]}),
        ),
        ("number", json!({"type": "number", "minimum": 1e-300, "maximum": 1e300})),
        ("multiple", json!({"type": "integer", "multipleOf": 982_451_653, "minimum": 1})),
        (
            "one of many",
            json!({"oneOf": (0..300).map(|i| json!({"const": i})).collect::<Vec<_>>()}),
        ),
    ] {
        let mut follow = match format.grammar(&json_request(schema)) {
            Ok(grammar) => grammar.unwrap(),
            Err(TextError::Constraint { what: why, .. }) => {
                assert!(why.len() < 400 && !why.contains('\n'), "{what}: {why}");
                continue;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        // Applying it for a while is bounded as well.
        let mut draws = Draws(3);
        let mut left = 200;
        while left > 0 && !follow.ended() {
            let all = allowed(&mut follow);
            follow.accept(all[draws.below(all.len())]).unwrap_or_else(|e| panic!("{what}: {e}"));
            left -= 1;
        }
    }
}
