//! Rows as lines of JSON.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::columns::{Cell, Column};
use super::{Call, ExportError, Rollout, RowWriter};

/// Writes JSON objects, one per line, to a file or a pipe.
pub struct JsonLines<W: Write> {
    path: PathBuf,
    out: BufWriter<W>,
    columns: Vec<&'static Column>,
    rows: u64,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `out`; `path` names it in errors.
    pub fn new(path: &Path, out: W, columns: Vec<&'static Column>) -> Self {
        Self { path: path.to_owned(), out: BufWriter::new(out), columns, rows: 0 }
    }

    fn failed(&self, source: std::io::Error) -> ExportError {
        ExportError::Write { path: self.path.clone(), source }
    }
}

impl<W: Write> RowWriter for JsonLines<W> {
    fn write(&mut self, rollout: &Rollout) -> Result<(), ExportError> {
        for (number, call) in rollout.calls.iter().enumerate() {
            let row = Row { columns: &self.columns, rollout, number, call };
            let written = serde_json::to_writer(&mut self.out, &row)
                .map_err(std::io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"));
            written.map_err(|error| self.failed(error))?;
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, ExportError> {
        self.out.flush().map_err(|error| self.failed(error))?;
        Ok(self.rows)
    }
}

struct Row<'a> {
    columns: &'a [&'static Column],
    rollout: &'a Rollout,
    number: usize,
    call: &'a Call,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for column in self.columns {
            match (column.cell)(self.rollout, self.number, self.call) {
                Cell::Int(value) => map.serialize_entry(column.name, &value)?,
                Cell::Real(value) => map.serialize_entry(column.name, &value)?,
                Cell::Flag(value) => map.serialize_entry(column.name, &value)?,
                Cell::Text(value) => map.serialize_entry(column.name, &value)?,
                Cell::Ints(value) => map.serialize_entry(column.name, &value)?,
                // As 32-bit floats, in the fewest digits that round-trip.
                Cell::Reals(value) => map.serialize_entry(column.name, &value)?,
                Cell::Flags(value) => map.serialize_entry(column.name, &value)?,
            }
        }
        map.end()
    }
}
