//! Rows of a file one at a time, whether it is JSONL or Parquet.

use std::path::Path;

use anyhow::Result;
use leyden_core::rows::{JsonLines, Line, LoadError, RowError};
use leyden_hub::parquet;

/// The rows of a file in order, numbered from 1.
pub type Lines = Box<dyn Iterator<Item = Result<Line, LoadError>> + Send>;

/// Opens a JSONL or, judging by its name, a Parquet file.
///
/// # Errors
/// A file that cannot be opened; a Parquet file that is not complete.
pub fn open(path: &Path) -> Result<Lines> {
    if !parquet::is_parquet(path) {
        return Ok(Box::new(JsonLines::open(path)?));
    }
    let rows = parquet::rows(path)?.enumerate();
    Ok(Box::new(rows.map(|(index, row)| {
        let row = row.map_err(|error| RowError::Unreadable(error.to_string()));
        Ok(Line { number: index + 1, row })
    })))
}
