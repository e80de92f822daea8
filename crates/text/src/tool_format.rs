//! Tool calls in the model's own chat format.
//!
//! A model calls a tool by writing text, in a syntax that depends on its family. Hermes (Qwen2.5,
//! Qwen3, Leyden's own tiny model) puts JSON between `<tool_call>` tags, Llama 3 answers with JSON
//! alone. Models whose template does not support tools (SmolLM2) use the Hermes form, explained in
//! the system message. Parsing never fails: a call that does not parse is reported as malformed,
//! which is an event of the episode and not an error.

use leyden_core::{ToolCall, ToolSpec};
use serde_json::{Map, Value, json};

use crate::jinja::dumps;

pub(crate) const OPEN: &str = "<tool_call>";
pub(crate) const CLOSE: &str = "</tool_call>";
pub(crate) const PYTHON_TAG: &str = "<|python_tag|>";

/// The tool-call syntax of a model, and how tools are presented to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`; the template shows the tools.
    Hermes,
    /// `{"name": …, "parameters": {…}}` as the whole message, optionally after `<|python_tag|>`;
    /// the template shows the tools.
    Llama3Json,
    /// Hermes, for a template without tool support: tools are described in the system message and
    /// their results are user messages.
    HermesInSystem,
}

/// The parsed parts of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// The text outside the tool calls, without surrounding white space.
    pub content: String,
    pub calls: Vec<ToolCall>,
    /// The error of the first tool call that does not parse.
    pub malformed: Option<String>,
}

impl ToolFormat {
    /// Detects the format from a chat template's source.
    pub fn detect(template: &str) -> Self {
        if template.contains(OPEN) {
            Self::Hermes
        } else if template.contains("tools") && template.contains("\"parameters\"") {
            Self::Llama3Json
        } else {
            Self::HermesInSystem
        }
    }

    /// Parses `text`. Calls are numbered `call_<first>`, `call_<first + 1>`, …, where `first` is
    /// the number of calls earlier in the conversation.
    pub fn parse(self, text: &str, first: usize) -> Parsed {
        match self {
            Self::Hermes | Self::HermesInSystem => parse_hermes(text, first),
            Self::Llama3Json => parse_llama3(text, first),
        }
    }

    /// The text with which an assistant writes `content` and makes `calls`: the inverse of
    /// [`parse`](Self::parse). Llama 3 writes no content with a call.
    pub fn write(self, content: &str, calls: &[ToolCall]) -> String {
        if calls.is_empty() {
            return content.to_owned();
        }
        let object = |call: &ToolCall, key: &str| {
            format!(
                "{{\"name\": {}, \"{key}\": {}}}",
                dumps(&json!(call.name)),
                dumps(&call.arguments)
            )
        };
        match self {
            Self::Llama3Json => {
                let calls: Vec<_> = calls.iter().map(|call| object(call, "parameters")).collect();
                calls.join("; ")
            }
            Self::Hermes | Self::HermesInSystem => {
                let mut parts = Vec::new();
                if !content.is_empty() {
                    parts.push(content.to_owned());
                }
                parts.extend(
                    calls.iter().map(|c| format!("{OPEN}\n{}\n{CLOSE}", object(c, "arguments"))),
                );
                parts.join("\n")
            }
        }
    }

    /// The description of the available tools for a model without tool support.
    pub fn describe(tools: &[ToolSpec]) -> String {
        let mut text = format!(
            "You may call a tool by writing\n{OPEN}\n{{\"name\": \"...\", \"arguments\": \
             {{...}}}}\n{CLOSE}\nIts result follows in <tool_response>. Tools:"
        );
        for tool in tools {
            text.push_str(&format!("\n{}: {}", signature(tool), tool.description));
        }
        text
    }
}

/// `name(argument: type, …)` from a JSON schema.
fn signature(tool: &ToolSpec) -> String {
    let properties = tool.parameters.get("properties").and_then(Value::as_object);
    let arguments: Vec<String> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| match schema.get("type").and_then(Value::as_str) {
            Some(kind) => format!("{name}: {kind}"),
            None => name.clone(),
        })
        .collect();
    format!("{}({})", tool.name, arguments.join(", "))
}

impl Parsed {
    fn note(&mut self, call: Result<(String, Value), String>, first: usize) {
        match call {
            Ok((name, arguments)) => {
                let id = format!("call_{}", first + self.calls.len());
                self.calls.push(ToolCall { id, name, arguments });
            }
            Err(what) => self.malformed = self.malformed.take().or(Some(what)),
        }
    }
}

fn parse_hermes(text: &str, first: usize) -> Parsed {
    let mut parsed = Parsed::default();
    let mut content = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        content.push_str(&rest[..start]);
        let body = &rest[start + OPEN.len()..];
        let (call, after) = hermes_call(body);
        parsed.note(call, first);
        rest = after;
    }
    content.push_str(rest);
    if content.contains(CLOSE) {
        parsed.note(Err(format!("{CLOSE} closes no {OPEN}")), first);
    }
    parsed.content = content.trim().to_owned();
    parsed
}

/// One call after its opening tag, and the text after its closing tag. A complete call that only
/// lacks the closing tag at the end of the text counts, as in vLLM.
pub(crate) fn hermes_call(body: &str) -> (Result<(String, Value), String>, &str) {
    let to_close = || body.find(CLOSE).map_or("", |end| &body[end + CLOSE.len()..]);
    let (value, after) = match json_prefix(body) {
        Ok(found) => found,
        Err(what) => return (Err(format!("the tool call is not JSON: {what}")), to_close()),
    };
    let after = after.trim_start();
    match after.strip_prefix(CLOSE) {
        Some(rest) => (as_call(value, &["arguments"]), rest),
        None if after.is_empty() => (as_call(value, &["arguments"]), ""),
        None => (Err(format!("text between the tool call's JSON and {CLOSE}")), to_close()),
    }
}

fn parse_llama3(text: &str, first: usize) -> Parsed {
    let plain = |content: &str| Parsed { content: content.trim().to_owned(), ..Parsed::default() };
    let (mut parsed, mut rest) = match text.split_once(PYTHON_TAG) {
        Some((content, call)) => (plain(content), call.trim()),
        None => (Parsed::default(), text.trim()),
    };
    let tagged = text.contains(PYTHON_TAG);
    let looks_like_a_call = tagged || (rest.starts_with('{') && rest.contains("\"name\""));
    if !looks_like_a_call {
        return plain(text);
    }
    loop {
        match json_prefix(rest) {
            // JSON that is not a call, and has no tag, is an answer in JSON.
            Ok((value, _)) if !tagged && value.get("name").is_none() => return plain(text),
            Ok((value, after)) => {
                parsed.note(as_call(value, &["parameters", "arguments"]), first);
                rest = after.trim_start().trim_start_matches(';').trim_start();
            }
            Err(what) => {
                parsed.note(Err(format!("the tool call is not JSON: {what}")), first);
                return parsed;
            }
        }
        if rest.is_empty() {
            return parsed;
        }
    }
}

/// The JSON value at the start of `text` and what follows it.
fn json_prefix(text: &str) -> Result<(Value, &str), String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => Ok((value, &text[values.byte_offset()..])),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("there is nothing".to_owned()),
    }
}

/// Parse state of a JSON value at the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonState {
    Whole,
    /// May be completed by more text.
    Unfinished,
    /// Cannot be completed.
    Broken,
}

pub(crate) fn json_state(text: &str) -> JsonState {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(_)) => JsonState::Whole,
        Some(Err(error)) if !error.is_eof() => JsonState::Broken,
        _ => JsonState::Unfinished,
    }
}

/// Name and arguments of a call; arguments encoded as a JSON string are accepted.
fn as_call(value: Value, keys: &[&str]) -> Result<(String, Value), String> {
    let Value::Object(mut object) = value else {
        return Err("the tool call is not a JSON object".to_owned());
    };
    let name = match object.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        _ => return Err("the tool call has no name".to_owned()),
    };
    let arguments = keys.iter().find_map(|key| object.remove(*key));
    let arguments = match arguments {
        Some(Value::String(text)) => serde_json::from_str::<Map<_, _>>(&text).map(Value::Object),
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => return Err(format!("the {} of `{name}` are not an object", keys[0])),
        None => return Err(format!("the call of `{name}` has no {}", keys[0])),
    };
    match arguments {
        Ok(arguments) => Ok((name, arguments)),
        Err(error) => Err(format!("the {} of `{name}` are not an object: {error}", keys[0])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn call(id: usize, name: &str, arguments: Value) -> ToolCall {
        ToolCall { id: format!("call_{id}"), name: name.into(), arguments }
    }

    #[test]
    fn formats_are_detected() {
        assert_eq!(ToolFormat::detect(crate::CHATML_TEMPLATE), ToolFormat::Hermes);
        let llama = r#"{% if tools %}{"name": x, "parameters": y}{% endif %}"#;
        assert_eq!(ToolFormat::detect(llama), ToolFormat::Llama3Json);
        assert_eq!(ToolFormat::detect("{{ messages }}"), ToolFormat::HermesInSystem);
        let Some(folder) = leyden_core::shared_material("data/chat_templates") else { return };
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().to_lowercase();
            let expected = match () {
                () if name.contains("llama") => ToolFormat::Llama3Json,
                () if name.contains("qwen") => ToolFormat::Hermes,
                () => ToolFormat::HermesInSystem,
            };
            let source = std::fs::read_to_string(&path).unwrap();
            assert_eq!(ToolFormat::detect(&source), expected, "{name}");
        }
    }

    #[test]
    fn hermes_calls_are_removed_from_the_text() {
        let text = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"</tool_call>\"}}\n</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call> ok";
        let parsed = ToolFormat::Hermes.parse(text, 2);
        assert_eq!(parsed.content, "Let me see.\n\n ok");
        let expected = [call(2, "f", json!({"x": "</tool_call>"})), call(3, "g", json!({}))];
        assert_eq!(parsed.calls, expected);
        assert_eq!(parsed.malformed, None);
    }

    #[test]
    fn malformed_hermes_calls_report_the_reason() {
        for (text, word) in [
            ("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}", "not JSON"),
            ("<tool_call></tool_call>", "not JSON"),
            ("<tool_call>[1]</tool_call>", "not a JSON object"),
            ("<tool_call>{\"arguments\": {}}</tool_call>", "no name"),
            ("<tool_call>{\"name\": \"f\"}</tool_call>", "no arguments"),
            ("<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>", "not an object"),
            ("<tool_call>{\"name\": \"f\", \"arguments\": {}} or so</tool_call>", "between"),
            ("so {\"name\": \"f\"}</tool_call>", "closes no"),
        ] {
            let parsed = ToolFormat::Hermes.parse(text, 0);
            let what = parsed.malformed.unwrap_or_default();
            assert!(what.contains(word), "{text}: {what}");
            assert!(parsed.calls.is_empty(), "{text}");
        }
        let unclosed = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n";
        assert_eq!(ToolFormat::Hermes.parse(unclosed, 0).calls.len(), 1);
        let nested = format!("<tool_call>{}</tool_call>", "[".repeat(100_000));
        assert!(ToolFormat::Hermes.parse(&nested, 0).malformed.is_some());
    }

    #[test]
    fn a_call_after_a_malformed_one_still_counts() {
        let text =
            "<tool_call>oops</tool_call><tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>";
        let parsed = ToolFormat::Hermes.parse(text, 0);
        assert_eq!(parsed.calls, [call(0, "g", json!({}))]);
        assert!(parsed.malformed.is_some());
    }

    #[test]
    fn llama_calls_are_whole_messages() {
        let parse = |text| ToolFormat::Llama3Json.parse(text, 0);
        let expected = [call(0, "f", json!({"x": 1}))];
        for text in [
            " {\"name\": \"f\", \"parameters\": {\"x\": 1}}",
            "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"x\": 1}}",
            "{\"name\": \"f\", \"parameters\": \"{\\\"x\\\": 1}\"}",
        ] {
            assert_eq!(parse(text).calls, expected, "{text}");
            assert_eq!(parse(text).malformed, None, "{text}");
        }
        let two =
            "{\"name\": \"f\", \"parameters\": {\"x\": 1}}; {\"name\": \"g\", \"parameters\": {}}";
        assert_eq!(parse(two).calls.len(), 2);
        for text in ["plain", "{\"answer\": 3}", "{x} \"name\" of a set", "see {\"name\": \"f\"}"] {
            let parsed = parse(text);
            assert!(parsed.calls.is_empty(), "{text}");
        }
        assert_eq!(parse("{\"answer\": 3}").content, "{\"answer\": 3}");
        assert!(parse("{\"name\": \"f\", \"parameters\": {\"x\": 1}").malformed.is_some());
        assert!(parse("<|python_tag|>f.call(x=1)").malformed.is_some());
        assert!(parse("<|python_tag|>").malformed.is_some());
    }

    #[test]
    fn tools_are_described_in_few_words() {
        let tool = ToolSpec {
            name: "retrieve".into(),
            description: "Searches.".into(),
            parameters: json!({"properties": {"query": {"type": "string"}, "k": {}}}),
        };
        let text = ToolFormat::describe(&[tool]);
        assert!(text.ends_with("retrieve(query: string, k): Searches."), "{text}");
        assert!(text.contains("<tool_call>"));
    }

    fn fragment() -> impl Strategy<Value = String> {
        let markup = [
            OPEN,
            CLOSE,
            PYTHON_TAG,
            "{\"name\": \"f\", \"arguments\": {}}",
            "{",
            "}",
            ";",
            "\"name\"",
            "[[",
            "\\u",
            "é🦀",
        ];
        prop_oneof![prop::sample::select(markup.to_vec()).prop_map(str::to_owned), ".{0,6}"]
    }

    proptest! {
        #[test]
        fn hostile_text_is_parsed(parts in prop::collection::vec(fragment(), 0..12)) {
            let text = parts.concat();
            for format in [ToolFormat::Hermes, ToolFormat::Llama3Json] {
                let parsed = format.parse(&text, 0);
                for (i, call) in parsed.calls.iter().enumerate() {
                    prop_assert_eq!(&call.id, &format!("call_{i}"));
                }
            }
        }

        #[test]
        fn written_calls_parse_back(
            names in prop::collection::vec("[a-z\"\\\\é]{1,8}", 1..4),
            value in "\\PC{0,20}",
            content in "[a-z ]{0,10}",
        ) {
            let calls: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(i, name)| call(i, name, json!({"x": value, "n": [1, 2.5, null]})))
                .collect();
            for format in [ToolFormat::Hermes, ToolFormat::Llama3Json] {
                let parsed = format.parse(&format.write(&content, &calls), 0);
                prop_assert_eq!(&parsed.calls, &calls);
                prop_assert_eq!(parsed.malformed, None);
            }
        }
    }
}
