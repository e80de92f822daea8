//! The paragraphs of a dataset as a searchable corpus.
//!
//! The official setting gives each question its twenty paragraphs. An agent that searches needs one
//! corpus for all questions: the distinct paragraphs of a file. Paragraphs are identified by their
//! content, since their indices are local to a question.

use std::collections::HashSet;

use leyden_core::{Passage, Task};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The identifier of a paragraph: 16 hexadecimal digits of the SHA-256 of title and text, so that
/// equal paragraphs of different questions, files and splits share it.
pub fn passage_id(title: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    // Without line breaks in the title the separation of the two parts is unambiguous.
    hash.update(title.replace('\n', " "));
    hash.update("\n");
    hash.update(text);
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The distinct paragraphs of `tasks` in order of first occurrence.
pub fn passages(tasks: &[Task]) -> Vec<Passage> {
    let mut seen = HashSet::new();
    let mut corpus = Vec::new();
    for paragraph in tasks.iter().flat_map(paragraphs) {
        let (title, text) = (text(paragraph, "title"), text(paragraph, "paragraph_text"));
        let id = passage_id(title, text);
        if seen.insert(id.clone()) {
            corpus.push(Passage { id, title: title.to_owned(), text: text.to_owned() });
        }
    }
    corpus
}

/// The identifiers of the paragraphs that support a task's answer, without repetition.
pub fn supporting(task: &Task) -> Vec<String> {
    let mut ids = Vec::new();
    for paragraph in paragraphs(task) {
        if paragraph.get("is_supporting").and_then(Value::as_bool) == Some(true) {
            let id = passage_id(text(paragraph, "title"), text(paragraph, "paragraph_text"));
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    ids
}

fn paragraphs(task: &Task) -> impl Iterator<Item = &Map<String, Value>> {
    let list = task.fields.get("paragraphs").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

fn text<'a>(paragraph: &'a Map<String, Value>, field: &str) -> &'a str {
    paragraph.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(paragraphs: Value) -> Task {
        let Value::Object(fields) = json!({ "paragraphs": paragraphs }) else { unreachable!() };
        let (question, gold) = ("q".to_owned(), "A".to_owned());
        Task { id: "t".to_owned(), question, gold, labels: Vec::new(), fields }
    }

    fn paragraph(title: &str, text: &str, supporting: bool) -> Value {
        json!({ "title": title, "paragraph_text": text, "is_supporting": supporting })
    }

    #[test]
    fn equal_paragraphs_of_different_questions_are_one_passage() {
        let tasks = [
            task(json!([paragraph("T", "x", true), paragraph("T", "y", false)])),
            task(json!([paragraph("T", "y", true), paragraph("U", "x", true)])),
            task(Value::Null),
        ];
        let corpus = passages(&tasks);
        let contents: Vec<_> = corpus.iter().map(|p| (p.title.as_str(), p.text.as_str())).collect();
        assert_eq!(contents, [("T", "x"), ("T", "y"), ("U", "x")]);
        assert_eq!(supporting(&tasks[0]), [corpus[0].id.clone()]);
        assert_eq!(supporting(&tasks[1]), [corpus[1].id.clone(), corpus[2].id.clone()]);
        assert!(supporting(&tasks[2]).is_empty());
    }

    #[test]
    fn identifiers_depend_on_both_parts() {
        assert_eq!(passage_id("T", "x").len(), 16);
        assert_ne!(passage_id("T", "x"), passage_id("Tx", ""));
        assert_ne!(passage_id("T", "x\ny"), passage_id("T\nx", "y"));
    }
}
