//! Validates clients' JSON schemas, so that errors name the location.
//!
//! llguidance reports most errors without their location, and does not validate the shape of some
//! parts. It also has its own options inside the schema (`x-guidance`), which clients must not set.

use serde_json::{Map, Value, json};

use crate::TextError;

/// Maximum nesting of schemas.
const MAX_DEPTH: usize = 48;
/// Maximum number of subschemas. The compiler recurses, also through references, and its time grows
/// with the square of an object's properties.
const MAX_SCHEMAS: usize = 2_000;
/// Maximum number of enumerated values and required names in one schema.
const MAX_VALUES: usize = 20_000;
/// White space between the parts of JSON: enough for indentation, but bounded.
const SPACE: &str = r"[ \n\r\t]{1,40}";

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Keywords of JSON schema that restrict validity and cannot be enforced.
const UNSUPPORTED: [&str; 16] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
];

/// The schema of a response, ready to be compiled.
///
/// # Errors
/// An invalid or too large schema; names the location in `field`.
pub(super) fn of_answer(schema: &Value, field: &str) -> Result<Value, TextError> {
    Checker { field, schemas: 0, values: 0 }.check(schema, &mut Vec::new())?;
    Ok(with_options(schema))
}

/// The schema of a tool's arguments, which are always an object.
///
/// # Errors
/// As [`of_answer`]; a schema of anything other than an object.
pub(super) fn of_arguments(schema: &Value, field: &str) -> Result<Value, TextError> {
    let object = json!({"type": "object"});
    let schema = match schema {
        Value::Null | Value::Bool(true) => &object,
        other => other,
    };
    let mut ready = of_answer(schema, field)?;
    if let Value::Object(keys) = &mut ready {
        let is_object = match keys.get("type") {
            // Next to a reference the compiler does not accept further keywords in all cases.
            None => {
                if !keys.contains_key("$ref") {
                    keys.insert("type".to_owned(), json!("object"));
                }
                true
            }
            Some(Value::String(name)) => name == "object",
            Some(names) => names.as_array().is_some_and(|n| n.contains(&json!("object"))),
        };
        if !is_object {
            return Err(refused(field, &["type"], "arguments are always an object"));
        }
        if keys.get("type").is_some_and(Value::is_array) {
            keys.insert("type".to_owned(), json!("object"));
        }
    }
    Ok(ready)
}

/// The compiler's error for a schema that has passed the check.
pub(super) fn unusable(field: &str, what: &str) -> TextError {
    let what = match what.strip_prefix("panic: ") {
        _ if what.contains("coerce_one_of") => {
            "the alternatives of a `oneOf` may overlap, which cannot be excluded; use `anyOf`"
                .to_owned()
        }
        Some(panic) => format!("the compiler of grammars fails on it ({panic})"),
        None => what.to_owned(),
    };
    TextError::Constraint { field: field.to_owned(), what }
}

/// Replaces the client's compiler options with ours.
fn with_options(schema: &Value) -> Value {
    let mut keys = match schema {
        Value::Object(keys) => keys.clone(),
        Value::Bool(false) => return schema.clone(),
        _ => Map::new(),
    };
    keys.insert("x-guidance".to_owned(), json!({"whitespace_pattern": SPACE}));
    Value::Object(keys)
}

fn refused(field: &str, place: &[&str], what: &str) -> TextError {
    let field = field.to_owned();
    let place: String = place.iter().map(|part| format!("/{part}")).collect();
    let what = if place.is_empty() { what.to_owned() } else { format!("{place}: {what}") };
    TextError::Constraint { field, what }
}

struct Checker<'f> {
    field: &'f str,
    schemas: usize,
    values: usize,
}

/// The path from the root to a part of a schema.
type Place<'s> = Vec<&'s str>;

impl Checker<'_> {
    fn check<'s>(&mut self, schema: &'s Value, place: &mut Place<'s>) -> Result<(), TextError> {
        self.schemas += 1;
        if self.schemas > MAX_SCHEMAS {
            let what = format!("it has more than {MAX_SCHEMAS} schemas");
            return Err(refused(self.field, &[], &what));
        }
        if place.len() > 2 * MAX_DEPTH {
            let what = format!("schemas are nested more than {MAX_DEPTH} deep");
            return Err(refused(self.field, &[], &what));
        }
        let keys = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(keys) => keys,
            other => {
                let what = format!("a schema is an object, true or false, not {}", kind(other));
                return Err(refused(self.field, place, &what));
            }
        };
        for (key, value) in keys {
            place.push(key);
            self.keyword(key, value, place)?;
            place.pop();
        }
        Ok(())
    }

    fn keyword<'s>(
        &mut self,
        key: &str,
        value: &'s Value,
        place: &mut Place<'s>,
    ) -> Result<(), TextError> {
        let expected = match key {
            "type" => return self.type_names(value, place),
            "properties" | "patternProperties" | "$defs" | "definitions" => {
                return self.schemas_by_name(value, place);
            }
            "items" if value.is_array() => return self.schema_list(value, place),
            "items" | "additionalItems" | "additionalProperties" => {
                return self.check(value, place);
            }
            "prefixItems" | "anyOf" | "oneOf" | "allOf" => return self.schema_list(value, place),
            "enum" => {
                let values = value.as_array().filter(|values| !values.is_empty());
                self.count(values.map_or(0, Vec::len))?;
                values.is_none().then_some("a list of at least one value")
            }
            "required" => {
                let names = value.as_array();
                self.count(names.map_or(0, Vec::len))?;
                let texts = names.is_some_and(|names| names.iter().all(Value::is_string));
                (!texts).then_some("a list of names")
            }
            "$ref" | "pattern" | "format" => (!value.is_string()).then_some("a text"),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => (!value.is_u64()).then_some("a number of 0, 1, 2, …"),
            "minimum" | "maximum" | "multipleOf" => (!value.is_number()).then_some("a number"),
            "exclusiveMinimum" | "exclusiveMaximum" => {
                (!value.is_number() && !value.is_boolean()).then_some("a number")
            }
            _ if UNSUPPORTED.contains(&key) => {
                return Err(refused(self.field, place, "this keyword cannot be enforced"));
            }
            _ => None,
        };
        match expected {
            None => Ok(()),
            Some(expected) => {
                let what = format!("expected {expected}, found {}", kind(value));
                Err(refused(self.field, place, &what))
            }
        }
    }

    fn type_names(&self, value: &Value, place: &[&str]) -> Result<(), TextError> {
        let names = match value {
            Value::Array(names) if !names.is_empty() => names.as_slice(),
            one => std::slice::from_ref(one),
        };
        for name in names {
            if !name.as_str().is_some_and(|name| TYPES.contains(&name)) {
                let found = match name {
                    Value::String(name) => format!("`{}`", shortened(name)),
                    other => kind(other).to_owned(),
                };
                let what = format!("{found} is not a type; types are {}", TYPES.join(", "));
                return Err(refused(self.field, place, &what));
            }
        }
        Ok(())
    }

    fn schemas_by_name<'s>(
        &mut self,
        value: &'s Value,
        place: &mut Place<'s>,
    ) -> Result<(), TextError> {
        let Value::Object(schemas) = value else {
            let what = format!("expected schemas by name, found {}", kind(value));
            return Err(refused(self.field, place, &what));
        };
        for (name, schema) in schemas {
            place.push(name);
            self.check(schema, place)?;
            place.pop();
        }
        Ok(())
    }

    fn schema_list<'s>(
        &mut self,
        value: &'s Value,
        place: &mut Place<'s>,
    ) -> Result<(), TextError> {
        let Value::Array(schemas) = value else {
            let what = format!("expected a list of schemas, found {}", kind(value));
            return Err(refused(self.field, place, &what));
        };
        for schema in schemas {
            place.push("*");
            self.check(schema, place)?;
            place.pop();
        }
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), TextError> {
        self.values += values;
        if self.values > MAX_VALUES {
            let what = format!("it has more than {MAX_VALUES} enumerated values and names");
            return Err(refused(self.field, &[], &what));
        }
        Ok(())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
