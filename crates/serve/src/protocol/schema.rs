//! Checks that a JSON value is a valid schema.
//!
//! A tool's schema is inserted into the prompt as text, so an invalid one would not fail but only
//! mislead the model. This checks the keywords that templates and grammars read; the backend
//! decides whether a grammar can enforce them all.

use serde_json::Value;

use super::error::ApiError;
use super::fields::wrong;

const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Keywords whose value is a schema, a list of schemas, or schemas by name.
const ONE: [&str; 5] = ["additionalProperties", "not", "contains", "propertyNames", "if"];
const LIST: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];
const NAMED: [&str; 4] = ["properties", "$defs", "definitions", "patternProperties"];

/// Checks a schema of arguments, which must describe an object.
pub(super) fn check_arguments(schema: &Value, path: &str) -> Result<(), ApiError> {
    match schema.as_object().map(|map| map.get("type")) {
        None => Err(wrong(path.to_owned(), "a JSON schema", schema)),
        Some(Some(kind)) if kind != "object" => {
            Err(wrong(format!("{path}.type"), "\"object\", because arguments are named", kind))
        }
        Some(_) => check(schema, path),
    }
}

/// Checks a schema recursively. The JSON parser bounds the depth.
pub(super) fn check(schema: &Value, path: &str) -> Result<(), ApiError> {
    let map = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(map) => map,
        other => return Err(wrong(path.to_owned(), "a JSON schema", other)),
    };
    for (name, value) in map {
        let place = || format!("{path}.{name}");
        let name = name.as_str();
        match name {
            "type" => check_type(value, place())?,
            "required" => list(value, place(), "a list of strings", |v| v.is_string())?,
            "enum" => list(value, place(), "a list", |_| true)?,
            "items" => match value {
                Value::Array(schemas) => each(schemas, &place())?,
                one => check(one, &place())?,
            },
            _ if ONE.contains(&name) => check(value, &place())?,
            _ if LIST.contains(&name) => match value {
                Value::Array(schemas) => each(schemas, &place())?,
                other => return Err(wrong(place(), "a list of JSON schemas", other)),
            },
            _ if NAMED.contains(&name) => match value {
                Value::Object(schemas) => schemas
                    .iter()
                    .try_for_each(|(key, schema)| check(schema, &format!("{}.{key}", place())))?,
                other => return Err(wrong(place(), "an object of JSON schemas", other)),
            },
            _ => {}
        }
    }
    Ok(())
}

fn each(schemas: &[Value], path: &str) -> Result<(), ApiError> {
    let mut numbered = schemas.iter().enumerate();
    numbered.try_for_each(|(i, schema)| check(schema, &format!("{path}[{i}]")))
}

fn check_type(value: &Value, path: String) -> Result<(), ApiError> {
    let known = |v: &Value| v.as_str().is_some_and(|name| TYPES.contains(&name));
    match value {
        Value::Array(names) if !names.is_empty() && names.iter().all(known) => Ok(()),
        one if known(one) => Ok(()),
        other => Err(wrong(path, "a type of JSON values", other)),
    }
}

fn list(
    value: &Value,
    path: String,
    expected: &str,
    accept: fn(&Value) -> bool,
) -> Result<(), ApiError> {
    let listed = value.as_array().is_some_and(|values| values.iter().all(accept));
    if listed { Ok(()) } else { Err(wrong(path, expected, value)) }
}
