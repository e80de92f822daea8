//! The reward: execution match.

use std::collections::BTreeMap;
use std::sync::Arc;

use leyden_core::{Score, ScoreError, Scorer, Task};
use serde_json::Value;

use crate::clauses::compare;
use crate::execution::judge;
use crate::spider::Spider;

/// The field of a task that names its database.
pub const DATABASE_FIELD: &str = "db_id";

/// Reward 1 if the answer's results match those of the reference, else 0.
///
/// The answer is the query itself. Parts: `execution` (the reward), `runs` (1 if the query ran)
/// and, if the reference parses, `exact_match`, else `clauses`, the share of clauses that agree.
#[derive(Debug, Clone)]
pub struct SpiderScorer {
    spider: Arc<Spider>,
}

impl SpiderScorer {
    pub fn new(spider: Arc<Spider>) -> Self {
        Self { spider }
    }
}

impl Scorer for SpiderScorer {
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        let broken = |what: String| ScoreError { task: task.id.clone(), what };
        let id = task.fields.get(DATABASE_FIELD).and_then(Value::as_str);
        let id = id.ok_or_else(|| broken(format!("it has no field {DATABASE_FIELD}")))?;
        let database =
            self.spider.databases().get(id).map_err(|error| broken(error.to_string()))?;
        // A missing answer is judged as an empty query, so that a broken task is still detected.
        let query = answer.unwrap_or_default();
        let verdict = judge(&database, &task.gold, query).map_err(|e| broken(e.to_string()))?;
        let flag = |holds: bool| f64::from(u8::from(holds));
        let reward = flag(verdict.matches());
        let mut parts = BTreeMap::from([("execution", reward), ("runs", flag(verdict.ran()))]);
        match self.spider.compare(id, &task.gold, query) {
            Ok(matched) => {
                parts.insert("exact_match", flag(matched.exact.matches));
            }
            Err(_) => {
                let compared = compare(&task.gold, query).map_or(0.0, |compared| compared.share());
                parts.insert("clauses", compared);
            }
        }
        Ok(Score { reward, parts })
    }
}
