//! The test items of an evaluation, read from its rollouts.
//!
//! A run's metrics have only an item's id and reward. The store of rollouts also has the
//! question, which shows whether an id means the same in two runs, and the labels if the program
//! that wrote it kept them (column `labels`, one JSON object per rollout).

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::params;

use crate::error::ReportError;
use crate::rollouts::open;

/// One test item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub question: String,
    pub gold: String,
    /// By label; empty if none were kept.
    pub labels: BTreeMap<String, String>,
}

/// The items of one evaluation by task id; empty if the run kept no rollouts of it.
pub(crate) fn read(
    path: &Path,
    step: u64,
    mode: &str,
) -> Result<BTreeMap<String, Item>, ReportError> {
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    of_evaluation(path, step, mode)
        .map_err(|source| ReportError::Rollouts { path: path.to_owned(), source })
}

fn of_evaluation(path: &Path, step: u64, mode: &str) -> rusqlite::Result<BTreeMap<String, Item>> {
    let database = open(path)?;
    let labelled: bool = database.query_row(
        "SELECT count(*) > 0 FROM pragma_table_info('rollouts') WHERE name = 'labels'",
        [],
        |row| row.get(0),
    )?;
    let labels = if labelled { "labels" } else { "NULL" };
    let mut statement = database.prepare(&format!(
        "SELECT task_id, question, gold, {labels} FROM rollouts
         WHERE step = ?1 AND phase = ?2 ORDER BY id"
    ))?;
    let rows = statement.query_map(params![step as i64, mode], |row| {
        let text: Option<String> = row.get(3)?;
        let labels = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok((row.get(0)?, Item { question: row.get(1)?, gold: row.get(2)?, labels }))
    })?;
    rows.collect()
}
