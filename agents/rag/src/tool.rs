//! The tool `retrieve`: its specification and its results.

use std::collections::HashSet;

use leyden_core::{Episode, SignalKind, ToolCall, ToolSpec};
use leyden_retrieval::{Hit, RetrievalError, Retriever};
use serde_json::{Value, json};

use crate::Options;

/// The tool's name.
pub const TOOL: &str = "retrieve";

/// The tool's specification.
pub fn spec() -> ToolSpec {
    ToolSpec {
        name: TOOL.to_owned(),
        description: "Finds the passages of an encyclopedia that match a query best.".to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {
                "query": { "type": "string", "description": "a few words about one fact" }
            },
            "required": ["query"]
        }),
    }
}

/// Formats passages for the model: numbered, title before text, at most `length` characters of
/// text.
pub fn render(hits: &[Hit], length: usize) -> String {
    if hits.is_empty() {
        return "No passage matches. Try other words.".to_owned();
    }
    let passage = |(index, hit): (usize, &Hit)| {
        let text = hit.passage.text.trim();
        let title = hit.passage.title.trim();
        let head = if title.is_empty() { String::new() } else { format!("{title}: ") };
        match text.char_indices().nth(length) {
            Some((end, _)) => format!("[{}] {head}{} …", index + 1, text[..end].trim_end()),
            None => format!("[{}] {head}{text}", index + 1),
        }
    };
    hits.iter().enumerate().map(passage).collect::<Vec<_>>().join("\n")
}

/// The searches of one rollout.
pub(crate) struct Searches<'a> {
    retriever: &'a dyn Retriever,
    options: &'a Options,
    /// Queries so far, normalised for case and white space.
    seen: HashSet<String>,
    count: usize,
}

impl<'a> Searches<'a> {
    pub(crate) fn new(retriever: &'a dyn Retriever, options: &'a Options) -> Self {
        Self { retriever, options, seen: HashSet::new(), count: 0 }
    }

    /// Runs one tool call; errors are returned to the model and recorded as signals.
    ///
    /// # Errors
    /// If the search itself fails.
    pub(crate) fn run(
        &mut self,
        call: &ToolCall,
        episode: &Episode<'_>,
    ) -> Result<String, RetrievalError> {
        if call.name != TOOL {
            episode.signal(SignalKind::UnknownTool, call.name.clone());
            return Ok(format!("ERROR: there is no tool `{}`, only `{TOOL}`", call.name));
        }
        // Small models write a number, such as a year, instead of a string.
        let query = match call.arguments.get("query") {
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        if query.is_empty() {
            episode.signal(SignalKind::MalformedCall, "no argument `query`");
            return Ok("ERROR: the argument `query` is missing".to_owned());
        }
        if self.count >= self.options.max_searches {
            episode.signal(SignalKind::Other("search_limit".to_owned()), query);
            return Ok("ERROR: no search is left; answer with what you know".to_owned());
        }
        self.count += 1;
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        if !self.seen.insert(words.join(" ")) {
            episode.signal(SignalKind::RepeatedCall, query.clone());
        }
        let hits = self.retriever.retrieve(&query, self.options.passages)?;
        if hits.is_empty() {
            episode.signal(SignalKind::EmptyResult, query);
        }
        Ok(render(&hits, self.options.passage_length))
    }
}
