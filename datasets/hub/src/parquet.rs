//! The rows of a Parquet file as JSON maps.
//!
//! Reads row by row instead of loading columns: the loaders consume one row at a time, and a
//! damaged part of a file does not affect the rest.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};
use serde_json::{Map, Value};

/// Why a Parquet file or a part of it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ParquetError {
    #[error("the file {} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("the file {} is not a complete Parquet file: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the file {}, row {row}, cannot be read: {reason}", path.display())]
    Row { path: PathBuf, row: usize, reason: String },
}

/// The rows of a file in order; see [`rows`].
pub struct RowReader {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// The row group to be opened next.
    next_group: usize,
    current: Option<ReaderIter>,
    /// Number of the last row read, from 1 over all row groups.
    row: usize,
}

/// Whether a file is Parquet, by its extension.
pub fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
}

/// Opens a Parquet file for reading row by row. Nested columns become lists and objects, values
/// that JSON lacks (NaN) become null.
///
/// # Errors
/// If the file cannot be opened or has no complete Parquet footer, as when it is truncated.
pub fn rows(path: impl AsRef<Path>) -> Result<RowReader, ParquetError> {
    let path = path.as_ref().to_owned();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) => return Err(ParquetError::Open { path, source }),
    };
    match guarded(|| SerializedFileReader::new(file)) {
        Ok(reader) => Ok(RowReader { path, reader, next_group: 0, current: None, row: 0 }),
        Err(reason) => Err(ParquetError::Damaged { path, reason }),
    }
}

/// Runs a step of the parquet crate, which returns an error for some damaged files and panics on
/// others. The objects used by the step must not be used after an error.
fn guarded<T>(
    step: impl FnOnce() -> Result<T, parquet::errors::ParquetError>,
) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its content is inconsistent".to_owned()),
    }
}

impl RowReader {
    /// Number of rows according to the file's metadata.
    pub fn row_count(&self) -> usize {
        usize::try_from(self.reader.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Opens the next row group; false after the last.
    fn open_group(&mut self) -> Result<bool, String> {
        let index = self.next_group;
        if index >= self.reader.num_row_groups() {
            return Ok(false);
        }
        self.next_group += 1;
        self.current = Some(guarded(|| {
            let group = self.reader.get_row_group(index)?;
            let schema = self.reader.metadata().file_metadata().schema_descr_ptr();
            TreeBuilder::new().as_iter(schema, group.as_ref())
        })?);
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<Map<String, Value>>, String> {
        loop {
            if let Some(group) = self.current.as_mut()
                && let Some(row) =
                    guarded(|| Ok(group.next().transpose()?.map(|row| row.to_json_value())))?
            {
                // A row is always an object.
                let Value::Object(map) = row else { continue };
                return Ok(Some(map));
            }
            self.current = None;
            if !self.open_group()? {
                return Ok(None);
            }
        }
    }
}

impl Iterator for RowReader {
    type Item = Result<Map<String, Value>, ParquetError>;

    /// The next row. After an error the rest of its row group is skipped.
    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read().transpose()?;
        self.row += 1;
        Some(read.map_err(|reason| {
            self.current = None;
            ParquetError::Row { path: self.path.clone(), row: self.row, reason }
        }))
    }
}
