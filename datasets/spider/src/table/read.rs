//! Files of references and predictions, in the official formats or as JSONL.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Gold;

/// Why a file cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the file {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the file {}, line {line}: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
    #[error("the file {} begins as a JSON list but is none: {what}", path.display())]
    List { path: PathBuf, what: String },
    #[error("the file {}, row {row} of its list: {what}", path.display())]
    Row { path: PathBuf, row: usize, what: String },
    #[error(
        "the file {} has {predictions} predictions for {gold} references: there must be one for each, a blank line for a missing one",
        path.display()
    )]
    Count { path: PathBuf, gold: usize, predictions: usize },
}

/// Reads references: lines `SQL<tab>database`, or JSON objects with `query` (or `gold`) and
/// `db_id`, one per line or in a list like the dataset's questions. Blank lines are skipped.
///
/// # Errors
/// If the file cannot be read or a line is not a reference.
pub fn read_gold(path: impl AsRef<Path>) -> Result<Vec<Gold>, ReadError> {
    let path = path.as_ref();
    let text = read(path)?;
    if text.trim_start().starts_with('[') {
        let failed = |row, what: String| ReadError::Row { path: path.to_owned(), row, what };
        let rows: Vec<Value> = serde_json::from_str(&text)
            .map_err(|error| ReadError::List { path: path.to_owned(), what: error.to_string() })?;
        let gold = |(index, row): (usize, &Value)| {
            row.as_object()
                .ok_or("it is not a JSON object")
                .and_then(gold_of_row)
                .map_err(|what| failed(index + 1, what.to_owned()))
        };
        return rows.iter().enumerate().map(gold).collect();
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            gold(line).map_err(|what| ReadError::Line {
                path: path.to_owned(),
                line: index + 1,
                what: what.to_owned(),
            })
        })
        .collect()
}

fn gold(line: &str) -> Result<Gold, &'static str> {
    if let Some(row) = object(line) {
        return gold_of_row(&row);
    }
    let (query, database) =
        line.trim().rsplit_once('\t').ok_or("there is no tab between query and database")?;
    let (query, database) = (query.trim().to_owned(), database.trim().to_owned());
    Ok(Gold { query, database, id: None })
}

fn gold_of_row(row: &Map<String, Value>) -> Result<Gold, &'static str> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    let query = text("query").or_else(|| text("gold")).ok_or("there is no field query")?;
    let database = text("db_id").ok_or("there is no field db_id")?;
    Ok(Gold { query, database, id: None })
}

/// Reads one prediction per line for `gold` references: SQL (text after a tab is ignored), or JSON
/// objects with `prediction` (or `pred`, `predicted`, `query`). A blank line is an empty
/// prediction.
///
/// As in the official program, ` value ` in a prediction becomes ` 1 `, because some systems write
/// it instead of values.
///
/// # Errors
/// If the file cannot be read, a line is not a prediction, or their number differs.
pub fn read_predictions(path: impl AsRef<Path>, gold: usize) -> Result<Vec<String>, ReadError> {
    let path = path.as_ref();
    let text = read(path)?;
    let mut predictions = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let prediction = prediction(line).ok_or_else(|| ReadError::Line {
            path: path.to_owned(),
            line: index + 1,
            what: "there is no field prediction".to_owned(),
        })?;
        predictions.push(prediction.replace(" value ", " 1 "));
    }
    // Trailing blank lines are not predictions if there are enough without them.
    while predictions.len() > gold && predictions.last().is_some_and(String::is_empty) {
        predictions.pop();
    }
    if predictions.len() != gold {
        let predictions = predictions.len();
        return Err(ReadError::Count { path: path.to_owned(), gold, predictions });
    }
    Ok(predictions)
}

/// `None` for a JSON object without a prediction; `null` is an empty one.
fn prediction(line: &str) -> Option<String> {
    if let Some(row) = object(line) {
        let names = ["prediction", "pred", "predicted", "query"];
        return match names.iter().find_map(|name| row.get(*name))? {
            Value::String(text) => Some(text.clone()),
            Value::Null => Some(String::new()),
            _ => None,
        };
    }
    Some(line.trim().split('\t').next().unwrap_or_default().to_owned())
}

fn object(line: &str) -> Option<Map<String, Value>> {
    if !line.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(line).ok()
}

fn read(path: &Path) -> Result<String, ReadError> {
    let bytes =
        std::fs::read(path).map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}
