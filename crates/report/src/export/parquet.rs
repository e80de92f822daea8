//! Rows as a Parquet file.
//!
//! Columns are optional; lists have the three levels of Parquet's LIST, which distinguishes null
//! lists from empty ones. Pages are compressed with Zstandard. A row group is written once it has
//! about [`GROUP`] tokens, so that memory does not grow with the file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::columns::{Cell, Column, Kind};
use super::{ExportError, Rollout, RowWriter};

type Result<T, E = parquet::errors::ParquetError> = std::result::Result<T, E>;

/// Tokens per row group.
const GROUP: usize = 1 << 20;

/// Writer of a Parquet file.
pub struct ParquetFile {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    columns: Vec<&'static Column>,
    /// Values by column of the rows that are not yet written.
    pending: Vec<Vec<Cell>>,
    tokens: usize,
    rows: u64,
}

impl ParquetFile {
    /// Creates the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: &Path, columns: Vec<&'static Column>) -> Result<Self, ExportError> {
        let file = File::create(path)
            .map_err(|source| ExportError::Write { path: path.to_owned(), source })?;
        let open = || {
            let schema = Arc::new(parse_message_type(&schema(&columns))?);
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .set_created_by(format!("leyden {}", env!("CARGO_PKG_VERSION")))
                .build();
            SerializedFileWriter::new(file, schema, Arc::new(properties))
        };
        let writer = open().map_err(|error| failed(path, &error))?;
        let pending = columns.iter().map(|_| Vec::new()).collect();
        Ok(Self { path: path.to_owned(), writer, columns, pending, tokens: 0, rows: 0 })
    }

    /// Writes the pending rows as one row group.
    fn flush(&mut self) -> Result<()> {
        if self.tokens == 0 && self.pending.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for (column, cells) in self.columns.iter().zip(&mut self.pending) {
            let Some(mut writer) = group.next_column()? else { break };
            write_column(&mut writer, column.kind, std::mem::take(cells))?;
            writer.close()?;
        }
        group.close()?;
        self.tokens = 0;
        Ok(())
    }
}

impl RowWriter for ParquetFile {
    fn write(&mut self, rollout: &Rollout) -> Result<(), ExportError> {
        for (number, call) in rollout.calls.iter().enumerate() {
            for (column, cells) in self.columns.iter().zip(&mut self.pending) {
                cells.push((column.cell)(rollout, number, call));
            }
            self.rows += 1;
            self.tokens += call.prompt_ids.len() + call.response_ids.len() + 1;
            if self.tokens >= GROUP {
                self.flush().map_err(|error| failed(&self.path, &error))?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, ExportError> {
        self.flush().map_err(|error| failed(&self.path, &error))?;
        self.writer.close().map_err(|error| failed(&self.path, &error))?;
        Ok(self.rows)
    }
}

fn failed(path: &Path, error: &parquet::errors::ParquetError) -> ExportError {
    ExportError::Parquet { path: path.to_owned(), message: error.to_string() }
}

/// The schema in Parquet's schema language.
fn schema(columns: &[&Column]) -> String {
    let mut text = String::from("message calls {\n");
    for Column { name, kind, .. } in columns {
        let list = |element: &str| {
            format!(
                "optional group {name} (LIST) {{ repeated group list {{ required {element} element; }} }}"
            )
        };
        let line = match kind {
            Kind::Int => format!("optional int64 {name};"),
            Kind::Real => format!("optional double {name};"),
            Kind::Flag => format!("optional boolean {name};"),
            Kind::Text => format!("optional binary {name} (STRING);"),
            Kind::Ints => list("int64"),
            Kind::Reals => list("float"),
            Kind::Flags => list("boolean"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text.push('}');
    text
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    kind: Kind,
    cells: Vec<Cell>,
) -> Result<()> {
    match kind {
        Kind::Int => scalars::<Int64Type>(writer, cells, |cell| match cell {
            Cell::Int(value) => value,
            _ => None,
        }),
        Kind::Real => scalars::<DoubleType>(writer, cells, |cell| match cell {
            Cell::Real(value) => value,
            _ => None,
        }),
        Kind::Flag => scalars::<BoolType>(writer, cells, |cell| match cell {
            Cell::Flag(value) => value,
            _ => None,
        }),
        Kind::Text => scalars::<ByteArrayType>(writer, cells, |cell| match cell {
            Cell::Text(value) => value.map(|text| ByteArray::from(text.into_bytes())),
            _ => None,
        }),
        Kind::Ints => lists::<Int64Type>(writer, cells, |cell| match cell {
            Cell::Ints(list) => list,
            _ => None,
        }),
        Kind::Reals => lists::<FloatType>(writer, cells, |cell| match cell {
            Cell::Reals(list) => list,
            _ => None,
        }),
        Kind::Flags => lists::<BoolType>(writer, cells, |cell| match cell {
            Cell::Flags(list) => list,
            _ => None,
        }),
    }
}

/// Single values: definition level 0 is null, 1 is a value.
fn scalars<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    cells: Vec<Cell>,
    value: fn(Cell) -> Option<T::T>,
) -> Result<()> {
    let (mut values, mut defined) = (Vec::new(), Vec::with_capacity(cells.len()));
    for cell in cells {
        let value = value(cell);
        defined.push(i16::from(value.is_some()));
        values.extend(value);
    }
    writer.typed::<T>().write_batch(&values, Some(&defined), None)?;
    Ok(())
}

/// Lists: definition level 0 is null, 1 an empty list, 2 a value; repetition level 1 continues the
/// list of the previous value.
fn lists<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    cells: Vec<Cell>,
    list: fn(Cell) -> Option<Vec<T::T>>,
) -> Result<()> {
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for cell in cells {
        match list(cell) {
            Some(list) if !list.is_empty() => {
                defined.extend(std::iter::repeat_n(2, list.len()));
                repeated.push(0);
                repeated.extend(std::iter::repeat_n(1, list.len() - 1));
                values.extend(list);
            }
            other => {
                defined.push(i16::from(other.is_some()));
                repeated.push(0);
            }
        }
    }
    writer.typed::<T>().write_batch(&values, Some(&defined), Some(&repeated))?;
    Ok(())
}
