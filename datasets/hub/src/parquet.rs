//! The rows of a Parquet file as JSON maps.
//!
//! Read row by row, not by columns into memory: the loaders take one row at a time, and a
//! damaged part of a file then costs no more than itself.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use serde_json::{Map, Value};

/// Why a Parquet file or a part of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParquetError {
    #[error("the file {} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("the file {} is not a whole Parquet file: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the file {}, row {row}, cannot be read: {reason}", path.display())]
    Row { path: PathBuf, row: usize, reason: String },
}

/// The rows of a file in order; see [`rows`].
pub struct Rows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// The row group to be opened next.
    next_group: usize,
    current: Option<ReaderIter>,
    /// Number of the row read last, counted from 1 over all row groups.
    row: usize,
}

/// Opens a Parquet file for reading row by row. Nested columns become lists and objects,
/// values that JSON lacks (NaN) null.
///
/// # Errors
/// Where the file cannot be opened or has no whole Parquet footer, as when it is cut off.
pub fn rows(path: impl AsRef<Path>) -> Result<Rows, ParquetError> {
    let path = path.as_ref().to_owned();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) => return Err(ParquetError::Open { path, source }),
    };
    match SerializedFileReader::new(file) {
        Ok(reader) => Ok(Rows { path, reader, next_group: 0, current: None, row: 0 }),
        Err(error) => Err(ParquetError::Damaged { path, reason: error.to_string() }),
    }
}

impl Rows {
    /// Number of rows that the file claims to have.
    pub fn row_count(&self) -> usize {
        usize::try_from(self.reader.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    fn open_group(&mut self) -> Result<(), parquet::errors::ParquetError> {
        let index = self.next_group;
        self.next_group += 1;
        let group = self.reader.get_row_group(index)?;
        let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
        self.current = Some(TreeBuilder::new().as_iter(schema, group.as_ref())?);
        Ok(())
    }

    fn error(&self, error: &parquet::errors::ParquetError) -> ParquetError {
        ParquetError::Row { path: self.path.clone(), row: self.row, reason: error.to_string() }
    }
}

impl Iterator for Rows {
    type Item = Result<Map<String, Value>, ParquetError>;

    /// The next row. After an error the rest of its row group is left out.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.current.as_mut().and_then(Iterator::next) {
                Some(Ok(row)) => {
                    self.row += 1;
                    match row.to_json_value() {
                        Value::Object(map) => return Some(Ok(map)),
                        // A row is an object by its type; nothing else can come.
                        _ => return Some(Ok(Map::new())),
                    }
                }
                Some(Err(error)) => {
                    self.row += 1;
                    self.current = None;
                    return Some(Err(self.error(&error)));
                }
                None if self.next_group < self.reader.num_row_groups() => {
                    if let Err(error) = self.open_group() {
                        self.row += 1;
                        return Some(Err(self.error(&error)));
                    }
                }
                None => return None,
            }
        }
    }
}
