//! Statistics of MuSiQue: composition of questions, and their passages.

use leyden_core::{Passage, Task};
use leyden_musique::corpus;
use leyden_musique::loader::golds;
use serde_json::Value;

use crate::describe::{Description, distribution};
use crate::table::counted;

/// Describes questions and their passages.
pub fn describe(name: &str, tasks: &[Task], passages: &[Passage]) -> Description {
    let mut description = Description::new(name, tasks);
    let count = |number: fn(&Task) -> usize| distribution(tasks.iter().map(number));
    description.own = vec![
        format!("aliases of the answer: {}", count(|task| golds(task).count() - 1)),
        format!("paragraphs per question: {}", count(|task| list(task, "paragraphs").len())),
        format!("  of which support it: {}", count(|task| corpus::supporting(task).len())),
        format!("corpus: {}", counted(passages.len(), "distinct passage")),
    ];
    description.measure("question", tasks.iter().map(|task| task.question.as_str()));
    description.measure("answer", tasks.iter().map(|task| task.gold.as_str()));
    description.measure("passage", passages.iter().map(|passage| passage.text.as_str()));
    description.show(tasks, |task| {
        let mut fields = vec![("question", task.question.clone())];
        fields
            .extend(list(task, "question_decomposition").iter().map(|hop| ("hop", formatted(hop))));
        fields.push(("answer", golds(task).collect::<Vec<_>>().join(" | ")));
        fields
    });
    description
}

fn list<'a>(task: &'a Task, field: &str) -> &'a [Value] {
    task.fields.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A single-hop question with its answer.
fn formatted(hop: &Value) -> String {
    let text = |field: &str| hop.get(field).and_then(Value::as_str).unwrap_or("?");
    format!("{} → {}", text("question"), text("answer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hops_and_passages_are_counted_and_shown() {
        let paragraph = |title: &str, supporting: bool| json!({ "title": title, "paragraph_text": "text", "is_supporting": supporting });
        let fields = json!({
            "answer_aliases": ["B"],
            "paragraphs": [paragraph("S", true), paragraph("T", true), paragraph("T", false)],
            "question_decomposition": [
                { "question": "a >> b", "answer": "x" },
                { "question": "#1 >> c", "answer": "A" },
            ],
        });
        let Value::Object(fields) = fields else { unreachable!() };
        let task = Task {
            id: "2hop__1_2".to_owned(),
            question: "who?".to_owned(),
            gold: "A".to_owned(),
            labels: vec![("hops".to_owned(), "2".to_owned())],
            fields,
        };
        let passages = corpus::passages(std::slice::from_ref(&task));
        let text = describe("some", &[task], &passages).to_string();
        for line in [
            "some: 1 task\n",
            "  hops  2: 1\n",
            "aliases of the answer: 1: 1\n",
            "paragraphs per question: 3: 1\n  of which support it: 2: 1\n",
            "corpus: 2 distinct passages\n",
            "    hop       a >> b → x\n    hop       #1 >> c → A\n    answer    A | B\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
