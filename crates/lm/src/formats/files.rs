//! Files: JSON, mapped into memory, replaced as a whole.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use memmap2::Mmap;
use serde_json::Value;

use crate::error::LmError;

/// A file of JSON.
///
/// # Errors
/// A file that cannot be read or is no JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value, LmError> {
    let text = std::fs::read_to_string(path).map_err(|e| LmError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| LmError::file(path, format!("no JSON: {e}")))
}

/// Maps a file into memory for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap, LmError> {
    let file = File::open(path).map_err(|e| LmError::file(path, e))?;
    if !file.metadata().map_err(|e| LmError::file(path, e))?.is_file() {
        return Err(LmError::file(path, "is not a file"));
    }
    // SAFETY: the mapping is read-only and is dropped before the reader returns. A file that
    // another process shortens meanwhile would end this process, as it would any reader of a
    // mapped model; our own writers never change a file in place but replace it.
    unsafe { Mmap::map(&file) }.map_err(|e| LmError::file(path, e))
}

/// Writes a file so that it is either the old one or the whole new one.
pub(crate) fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), LmError> {
    leyden_core::write_atomically(path, fill)
        .map_err(|e| LmError::file(path, format!("cannot be written: {e}")))
}
