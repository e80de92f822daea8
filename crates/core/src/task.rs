//! One dataset item.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One dataset item: a question, its reference answer and further dataset-specific fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The dataset's own identifier; unique within a split. Errors name it.
    pub id: String,
    /// The question put to the agent.
    pub question: String,
    /// The reference answer used by the scorer.
    pub gold: String,
    /// Labels by which evaluations are broken down: `operations = 2`, `split = held_out`.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
    /// The other fields of the row, by their names in the dataset (`chain`, `db_id`, …).
    #[serde(default)]
    pub fields: Map<String, Value>,
}

impl Task {
    /// The value of the label `name`, if present.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
