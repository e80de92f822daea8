//! Serialises tasks for external agents.

use serde_json::{Map, Value};

use leyden_core::Task;

/// Additional task inputs for agents outside of this process, such as the file of a database and
/// its schema as text.
pub trait Extras: Send + Sync {
    /// The additional fields of `task`. `server` is the address of the run's Lightning Server,
    /// which serves [`Extras::tools`].
    ///
    /// # Errors
    /// The reason why the task cannot be run.
    fn fields(&self, task: &Task, server: &str) -> Result<Map<String, Value>, String>;

    /// The tools available over HTTP, by name.
    fn tools(&self) -> Vec<(&'static str, Tool)> {
        Vec::new()
    }
}

/// A tool from a JSON request body to a JSON result, or to an error message.
pub type Tool = std::sync::Arc<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;

/// No additional inputs.
pub struct NoExtras;

impl Extras for NoExtras {
    fn fields(&self, _: &Task, _: &str) -> Result<Map<String, Value>, String> {
        Ok(Map::new())
    }
}

/// The task as JSON: its id, its question, and the fields of its dataset, overridden by `extras`.
/// Omits the reference answer and the fields that contain it.
pub(super) fn input(task: &Task, extras: Map<String, Value>) -> Value {
    let mut input = Map::new();
    input.insert("id".to_owned(), task.id.clone().into());
    input.insert("question".to_owned(), task.question.clone().into());
    let visible = task.fields.iter().filter(|(name, _)| !REFERENCES.contains(&name.as_str()));
    for (name, value) in visible {
        input.entry(name.clone()).or_insert_with(|| value.clone());
    }
    input.extend(extras);
    Value::Object(input)
}

/// Fields of Calc-X, Spider and MuSiQue that contain or explain the reference answer.
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
    fn the_reference_answer_is_omitted() {
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
