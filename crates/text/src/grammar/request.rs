//! Compiles the constraints of a request to a grammar.

use leyden_core::{ChatRequest, ResponseFormat, ToolChoice, ToolSpec};
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

use super::{Grammar, schema};
use crate::jinja::dumps;
use crate::tool_format::{CLOSE, OPEN};
use crate::{ChatFormat, TextError, ToolFormat};

impl ChatFormat {
    /// The grammar of a response to `request`; `None` if it is unconstrained.
    ///
    /// A required or named tool gives exactly one call in the model's own format, with arguments
    /// under the tool's schema and no other text. (A model may choose to write several calls in one
    /// response, but cannot be required to.) A response format gives JSON under the schema and, if
    /// the model may also call tools, JSON or one call. After that only the end-of-turn token is
    /// allowed. White space between the parts of JSON is bounded. (A number may still exceed the
    /// range of 64-bit floats: valid JSON that many parsers reject.)
    ///
    /// Compiling takes about a millisecond for a schema of ordinary size, up to half a second for
    /// the largest accepted ones; the first grammar of a chat format also prepares its vocabulary.
    /// Call it off latency-critical threads.
    ///
    /// A required call without tools; a named tool that is not offered; an invalid or unsatisfiable
    /// schema, or one with unsupported keywords. Each names the field of the request.
    pub fn grammar(&self, request: &ChatRequest) -> Result<Option<Grammar>, TextError> {
        if !request.is_constrained() {
            return Ok(None);
        }
        let tools = callable(request)?;
        let answer = answer_schema(request);
        let mut parts = Vec::new();
        for tool in &tools {
            let field = format!("the parameters of tool `{}`", tool.name);
            parts.push(Part { schema: schema::of_arguments(&tool.parameters, &field)?, field });
        }
        if let Some(answer) = answer {
            let field = "the schema of response_format".to_owned();
            parts.push(Part { schema: schema::of_answer(answer, &field)?, field });
        }
        let top = if tools.is_empty() {
            TopLevelGrammar {
                grammars: parts.iter().map(|p| p.grammar(None)).collect(),
                max_tokens: None,
            }
        } else {
            self.with_calls(&tools, &parts)
        };
        match self.follow(top) {
            Ok(grammar) => Ok(Some(grammar)),
            Err(error) => Err(self.blame(&parts, error)),
        }
    }

    /// One call of any of `tools`, whose schemas are the first of `parts`, or the answer described
    /// by the last of `parts`.
    fn with_calls(&self, tools: &[&ToolSpec], parts: &[Part]) -> TopLevelGrammar {
        let mut rules = Vec::new();
        for (index, tool) in tools.iter().enumerate() {
            let (before, after) = self.call_frame(&tool.name);
            rules.push(format!("{before} @part_{index} {after}"));
        }
        rules.extend((tools.len()..parts.len()).map(|index| format!("@part_{index}")));
        let lark = format!("start: {}\n", rules.join("\n    | "));
        let mut grammars = vec![GrammarWithLexer::from_lark(lark)];
        grammars.extend(parts.iter().enumerate().map(|(index, part)| part.grammar(Some(index))));
        TopLevelGrammar { grammars, max_tokens: None }
    }

    /// The text before and after the arguments of a call of `name`, as Lark terminals.
    fn call_frame(&self, name: &str) -> (String, String) {
        let name = dumps(&json!(name));
        match self.tool_format() {
            ToolFormat::Llama3Json => {
                (literal(&format!("{{\"name\": {name}, \"parameters\": ")), literal("}"))
            }
            ToolFormat::Hermes | ToolFormat::HermesInSystem => {
                let open = literal(&format!("\n{{\"name\": {name}, \"arguments\": "));
                (
                    format!("{} {open}", self.tag(OPEN)),
                    format!("{} {}", literal("}\n"), self.tag(CLOSE)),
                )
            }
        }
    }

    /// A tag as the model writes it: a control token if its vocabulary has one.
    fn tag(&self, tag: &str) -> String {
        let tokenizer = self.tokenizer();
        let control = tokenizer.token_id(tag).is_some_and(|id| tokenizer.is_special(id));
        if control { tag.to_owned() } else { literal(tag) }
    }

    /// Attributes `error` to a part: the first that fails on its own.
    fn blame(&self, parts: &[Part], error: TextError) -> TextError {
        for part in parts {
            let alone = TopLevelGrammar { grammars: vec![part.grammar(None)], max_tokens: None };
            if let Err(TextError::Grammar(what)) = self.follow(alone) {
                return schema::unusable(&part.field, &what);
            }
        }
        error
    }
}

/// JSON under a schema, and the schema's field in the request.
struct Part {
    schema: Value,
    field: String,
}

impl Part {
    fn grammar(&self, index: Option<usize>) -> GrammarWithLexer {
        GrammarWithLexer {
            name: index.map(|index| format!("part_{index}")),
            ..GrammarWithLexer::from_json_schema(self.schema.clone())
        }
    }
}

/// The tools that a constrained response may call.
fn callable(request: &ChatRequest) -> Result<Vec<&ToolSpec>, TextError> {
    let offered = request.offered_tools();
    let refused = |what: String| TextError::Constraint { field: "tool_choice".to_owned(), what };
    match &request.tool_choice {
        ToolChoice::Required if offered.is_empty() => {
            Err(refused("it requires a call, but there are no tools".to_owned()))
        }
        ToolChoice::Named(name) => {
            let tool = offered.iter().find(|tool| tool.name == *name);
            tool.map(|tool| vec![tool])
                .ok_or_else(|| refused(format!("it names `{name}`, which is not among the tools")))
        }
        _ => Ok(offered.iter().collect()),
    }
}

/// The schema of text outside calls; `None` if a call is required.
fn answer_schema(request: &ChatRequest) -> Option<&Value> {
    static OBJECT: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| json!({"type": "object"}));
    match (&request.tool_choice, &request.response_format) {
        (ToolChoice::Required | ToolChoice::Named(_), _) | (_, ResponseFormat::Text) => None,
        (_, ResponseFormat::JsonObject) => Some(&OBJECT),
        (_, ResponseFormat::JsonSchema(schema)) => Some(schema),
    }
}

/// A text as a Lark terminal, whose strings are JSON's without raw control characters.
fn literal(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}
