//! A task as an external agent is given it.

use serde_json::{Map, Value};

use leyden_core::Task;

/// What a benchmark adds to its tasks for agents that do not share its memory: the file of a
/// database, its schema as text.
pub trait Extras: Send + Sync {
    /// The further fields of `task`. `server` is the address of the run's Lightning Server,
    /// under which [`Extras::tools`] answers.
    ///
    /// # Errors
    /// Where the task cannot be worked on, as one sentence.
    fn fields(&self, task: &Task, server: &str) -> Result<Map<String, Value>, String>;

    /// The tools that agents reach over HTTP, by name.
    fn tools(&self) -> Vec<(&'static str, Tool)> {
        Vec::new()
    }
}

/// A tool that answers a JSON body with another, or says in a sentence what is wrong with it.
pub type Tool = std::sync::Arc<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;

/// Tasks that need nothing else.
pub struct NoExtras;

impl Extras for NoExtras {
    fn fields(&self, _: &Task, _: &str) -> Result<Map<String, Value>, String> {
        Ok(Map::new())
    }
}

/// The task as JSON: its id, its question, its labels, the fields of its dataset, `extras` on
/// top. The reference answer stays here, and so do fields that hold it.
pub(super) fn input(task: &Task, extras: Map<String, Value>) -> Value {
    let mut input = Map::new();
    input.insert("id".to_owned(), task.id.clone().into());
    input.insert("question".to_owned(), task.question.clone().into());
    let told = task.fields.iter().filter(|(name, _)| !REFERENCES.contains(&name.as_str()));
    for (name, value) in told {
        input.entry(name.clone()).or_insert_with(|| value.clone());
    }
    input.extend(extras);
    Value::Object(input)
}

/// Fields of Calc-X, Spider and MuSiQue that say or explain the reference answer.
const REFERENCES: [&str; 12] = [
    "answer",
    "answer_aliases",
    "answers",
    "chain",
    "gold",
    "query",
    "query_toks",
    "query_toks_no_value",
    "question_decomposition",
    "result",
    "result_float",
    "sql",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_reference_answer_is_not_told() {
        let fields = json!({"db_id": "pets", "query": "SELECT 1", "id": "other"});
        let task = Task {
            id: "t".to_owned(),
            question: "how many?".to_owned(),
            gold: "SELECT 1".to_owned(),
            labels: Vec::new(),
            fields: fields.as_object().cloned().unwrap_or_default(),
        };
        let extras = json!({"database": "/tmp/pets.sqlite"});
        let input = input(&task, extras.as_object().cloned().unwrap_or_default());
        assert_eq!(
            input,
            json!({
                "id": "t", "question": "how many?", "db_id": "pets", "database": "/tmp/pets.sqlite"
            })
        );
    }
}
