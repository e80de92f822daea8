//! What is rejected in a `tokenizer.json` before the `tokenizers` crate reads it.
//!
//! The crate trusts its files: some settings make it allocate gigabytes or fail in the middle of an
//! encoding. The vocabulary is not parsed here.

use serde::Deserialize;
use serde_json::Value;

use crate::TextError;

/// Deepest nesting of a component. Sequences in sequences are read many times over.
const MOST_NESTING: usize = 12;
/// How many times longer the replacements of a normaliser may make a text.
const MOST_GROWTH: usize = 16;

#[derive(Deserialize)]
struct File {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
}

/// Checks the content of a `tokenizer.json`.
///
/// # Errors
/// Not a JSON object, or a component that the crate cannot be given; the message names it.
pub(crate) fn check(json: &[u8]) -> Result<(), TextError> {
    let refuse = |what: String| Err(TextError::Tokenizer(what));
    let file: File =
        serde_json::from_slice(json).map_err(|e| TextError::Tokenizer(e.to_string()))?;
    for (key, component) in [
        ("normalizer", &file.normalizer),
        ("pre_tokenizer", &file.pre_tokenizer),
        ("post_processor", &file.post_processor),
        ("decoder", &file.decoder),
    ] {
        if let Some(component) = component {
            check_component(component, 0).or_else(|what| refuse(format!("{key}: {what}")))?;
        }
    }
    let growth = file.normalizer.as_ref().map_or(1, growth);
    if growth > MOST_GROWTH {
        return refuse(format!(
            "normalizer: its replacements can make a text {growth} times longer; at most \
             {MOST_GROWTH} times is supported"
        ));
    }
    let Some(model) = file.model else { return Ok(()) };
    // The crate cuts this prefix off merged tokens without looking for it.
    let prefixed = model.continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty());
    if prefixed && model.kind.as_deref() != Some("WordPiece") {
        return refuse(
            "model: a continuing_subword_prefix is supported for WordPiece only".to_owned(),
        );
    }
    Ok(())
}

/// Walks over a component and those within it.
fn check_component(value: &Value, depth: usize) -> Result<(), String> {
    if depth > MOST_NESTING {
        return Err(format!("it is nested more than {MOST_NESTING} deep"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_component(item, depth + 1)),
        Value::Object(object) => {
            if object.contains_key("precompiled_charsmap") {
                return Err("a precompiled_charsmap is not supported".to_owned());
            }
            if object.get("type").is_some_and(|kind| kind == "FixedLength")
                && object.get("length").is_some_and(|length| *length == 0)
            {
                return Err("the length of FixedLength must be at least 1".to_owned());
            }
            if let Some(single) = object.get("single") {
                check_template(single, object.get("special_tokens"))?;
            }
            object.values().try_for_each(|inner| check_component(inner, depth + 1))
        }
        _ => Ok(()),
    }
}

/// Checks the template for one sequence: it must not refer to a second sequence or to a special
/// token that is not defined.
fn check_template(single: &Value, special_tokens: Option<&Value>) -> Result<(), String> {
    for piece in single.as_array().into_iter().flatten() {
        if piece["Sequence"]["id"] == "B" {
            return Err("the template for a single sequence refers to a second one".to_owned());
        }
        if let Some(id) = piece["SpecialToken"]["id"].as_str()
            && special_tokens.is_none_or(|tokens| tokens.get(id).is_none())
        {
            return Err(format!("the template refers to the undefined special token `{id}`"));
        }
    }
    Ok(())
}

/// Product of the lengths of the replacements, in characters.
fn growth(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(growth).fold(1, usize::saturating_mul),
        Value::Object(object) => {
            let content = object.get("content").and_then(Value::as_str);
            let own = content.map_or(1, |content| content.chars().count().max(1));
            object.values().map(growth).fold(own, usize::saturating_mul)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Tokenizer;

    /// A minimal tokenizer with further components.
    fn with(more: Value) -> Result<Tokenizer, String> {
        let model = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        let mut json = json!({ "model": model });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Tokenizer::from_bytes(json.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn refused(more: Value, words: &str) {
        let error = with(more.clone()).map(drop).expect_err("it must be rejected");
        assert!(error.contains(words), "{more}: {error}");
    }

    #[test]
    fn a_charsmap_that_states_a_size_of_4_gb_is_rejected() {
        let map = json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="});
        refused(json!({ "normalizer": map }), "normalizer: a precompiled_charsmap");
        let sequence = json!({"type": "Sequence", "normalizers": [map]});
        refused(json!({ "normalizer": sequence }), "precompiled_charsmap");
    }

    #[test]
    fn replacements_that_multiply_a_text_are_rejected() {
        let replace = |content: &str| {
            let pattern = json!({"Regex": "."});
            json!({"type": "Replace", "pattern": pattern, "content": content})
        };
        let sequence = json!({"type": "Sequence", "normalizers": vec![replace("aaaa"); 8]});
        refused(json!({ "normalizer": sequence }), "65536 times longer");
        let usual = with(json!({ "normalizer": replace("\u{2581}") })).unwrap();
        assert_eq!(usual.encode("xyz").unwrap(), [0]);
    }

    #[test]
    fn settings_with_which_the_crate_would_panic_are_rejected() {
        let length = json!({"type": "FixedLength", "length": 0});
        refused(json!({ "pre_tokenizer": length }), "at least 1");
        let template = |piece: Value| {
            json!({"post_processor": {"type": "TemplateProcessing", "single": [piece],
                "pair": [], "special_tokens": {}}})
        };
        refused(template(json!({"SpecialToken": {"id": "[CLS]", "type_id": 0}})), "`[CLS]`");
        refused(template(json!({"Sequence": {"id": "B", "type_id": 0}})), "second one");
        let prefixed = json!({"type": "BPE", "continuing_subword_prefix": "####",
            "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]});
        refused(json!({ "model": prefixed }), "continuing_subword_prefix");
    }

    #[test]
    fn deeply_nested_components_are_rejected() {
        let mut nested = json!({"type": "Lowercase"});
        for _ in 0..30 {
            nested = json!({"type": "Sequence", "normalizers": [nested]});
        }
        refused(json!({ "normalizer": nested }), "nested more than");
    }
}
