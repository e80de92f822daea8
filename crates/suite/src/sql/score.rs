//! Scores Spider predictions like the official evaluator: execution match, exact match and
//! partial scores by hardness.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use leyden_core::Task;
use leyden_spider::scorer::DATABASE_FIELD;
use leyden_spider::{Limits, Spider, SpiderScorer, table};
use serde_json::Value;

use crate::predictions::answers::{self, Answer};
use crate::predictions::{Files, Scored};
use crate::registry::Registry;

/// Scores a file of predictions in the official format, or of lines of `id` and `answer`.
///
/// # Errors
/// No databases, files that cannot be read, predictions that do not match the questions.
pub fn score(files: &Files, registry: &Registry) -> Result<Scored> {
    files.default_reward_only()?;
    let databases = files.databases.as_deref().context(
        "--db is required to execute the queries: the Spider folder, or its folder of databases",
    )?;
    let spider =
        Arc::new(Spider::open(databases, Limits::default())?.with_workers(super::workers()));
    if !answers::are_named(&files.pred)? {
        files.in_order()?;
        let gold = table::read_gold(&files.gold)?;
        if gold.is_empty() {
            bail!("{}: the file has no references", files.gold);
        }
        let predictions = table::read_predictions(&files.pred, gold.len())?;
        let evaluation = table::evaluate(&spider, &gold, &predictions);
        return Scored::of(&evaluation.to_text(), &evaluation);
    }
    let (gold, answers) = files.named(registry, "sql", Some(databases))?;
    let references: Vec<table::Gold> = gold.read.tasks.iter().map(reference).collect();
    let text = |answer: &Answer| answer.text.clone().unwrap_or_default();
    let predictions: Vec<String> = answers.iter().map(text).collect();
    let evaluation = table::evaluate(&spider, &references, &predictions);
    let scorer = SpiderScorer::new(spider);
    Scored::with_rewards(&evaluation.to_text(), &evaluation, &scorer, &gold, &answers)
}

fn reference(task: &Task) -> table::Gold {
    let database = task.fields.get(DATABASE_FIELD).and_then(Value::as_str).unwrap_or_default();
    table::Gold {
        query: task.gold.clone(),
        database: database.to_owned(),
        id: Some(task.id.clone()),
    }
}
