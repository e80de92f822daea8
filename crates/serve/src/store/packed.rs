//! LZ4 compression of long texts.
//!
//! The record of a model call is about ten kilobytes of JSON, mostly field names repeated per
//! token. Compressed, it is a third or less, and the bytes written to the log, synced and copied
//! to the file limit how many calls per second can be made durable. Compression takes about ten
//! microseconds, on the caller's thread and not on the writer's.

use rusqlite::ToSql;
use rusqlite::types::{FromSqlError, ToSqlOutput, Type, ValueRef};

/// Texts up to this length stay uncompressed, readable by any tool.
const SHORT: usize = 1024;

/// A text column value: text if short, a compressed blob otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packed {
    Text(String),
    /// Length of the text as four little-endian bytes, then an LZ4 block.
    Block(Vec<u8>),
}

impl Packed {
    pub(super) fn new(text: String) -> Self {
        if text.len() <= SHORT {
            return Self::Text(text);
        }
        Self::Block(lz4_flex::block::compress_prepend_size(text.as_bytes()))
    }

    /// Stored size in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Block(block) => block.len(),
        }
    }
}

impl ToSql for Packed {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Block(block) => block.to_sql(),
        }
    }
}

/// Reads a column written by [`Packed`]. `longest` bounds the length that a corrupt header may
/// claim.
///
/// # Errors
/// If the column is neither text nor a valid block of at most that length.
pub(super) fn unpack(value: ValueRef<'_>, longest: usize) -> rusqlite::Result<String> {
    let broken = |what: String| {
        let error = FromSqlError::Other(what.into());
        rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error))
    };
    let block = match value {
        ValueRef::Text(_) => return Ok(value.as_str()?.to_owned()),
        _ => value.as_blob()?,
    };
    let (size, block) = lz4_flex::block::uncompressed_size(block)
        .map_err(|error| broken(format!("a packed text is damaged: {error}")))?;
    if size > longest {
        return Err(broken(format!("a packed text claims {size} bytes")));
    }
    let bytes = lz4_flex::block::decompress(block, size)
        .map_err(|error| broken(format!("a packed text is damaged: {error}")))?;
    // A block truncated between two sequences decompresses to less.
    if bytes.len() != size {
        return Err(broken(format!("a packed text has {} bytes instead of {size}", bytes.len())));
    }
    String::from_utf8(bytes).map_err(|error| broken(format!("a packed text: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        let db = rusqlite::Connection::open_in_memory().expect("a database");
        db.execute_batch("CREATE TABLE t (x)").expect("a table");
        db.execute("INSERT INTO t VALUES (?1)", [Packed::new(text.into())]).expect("a row");
        db.query_row("SELECT x FROM t", [], |row| unpack(row.get_ref(0)?, 1 << 20)).expect("a text")
    }

    #[test]
    fn texts_of_any_length_round_trip() {
        for length in [0, 1, SHORT, SHORT + 1, 100_000] {
            let text: String = "é{\"token\":".chars().cycle().take(length).collect();
            assert_eq!(round_trip(&text), text);
        }
    }

    #[test]
    fn corruption_is_an_error() {
        let Packed::Block(block) = Packed::new("abc".repeat(1000)) else { panic!("long") };
        for cut in 0..block.len() {
            assert!(unpack(ValueRef::Blob(&block[..cut]), 1 << 20).is_err());
        }
        let huge = [&u32::MAX.to_le_bytes()[..], &block[4..]].concat();
        assert!(unpack(ValueRef::Blob(&huge), 1 << 20).is_err());
        assert!(unpack(ValueRef::Integer(1), 1 << 20).is_err());
    }
}
