//! The tool `retrieve`: its specification and its results.

use std::collections::HashSet;

use leyden_core::{Episode, SignalKind, Task, ToolCall, ToolSpec};
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
    /// Title and text of the supporting passages that have not been found, and how many there are.
    supporting: Vec<(&'a str, &'a str)>,
    support: usize,
}

impl<'a> Searches<'a> {
    pub(crate) fn new(retriever: &'a dyn Retriever, options: &'a Options, task: &'a Task) -> Self {
        let supporting: Vec<_> = supporting(task).collect();
        let support = supporting.len();
        Self { retriever, options, seen: HashSet::new(), count: 0, supporting, support }
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
        self.reward(&hits, episode);
        Ok(render(&hits, self.options.passage_length))
    }

    /// Rewards a search for the supporting passages among `hits` that no earlier one found.
    fn reward(&mut self, hits: &[Hit], episode: &Episode<'_>) {
        let before = self.supporting.len();
        for hit in hits {
            let passage = (hit.passage.title.trim(), hit.passage.text.trim());
            self.supporting.retain(|supporting| *supporting != passage);
        }
        let found = before - self.supporting.len();
        if found > 0 && self.options.process_reward != 0.0 {
            episode.reward(self.options.process_reward * found as f64 / self.support as f64);
        }
    }
}

/// Title and text of the paragraphs that MuSiQue marks as supporting.
fn supporting(task: &Task) -> impl Iterator<Item = (&str, &str)> {
    let paragraphs = task.fields.get("paragraphs").and_then(Value::as_array);
    paragraphs
        .into_iter()
        .flatten()
        .filter(|p| p["is_supporting"] == true)
        .filter_map(|p| Some((p["title"].as_str()?.trim(), p["paragraph_text"].as_str()?.trim())))
}
