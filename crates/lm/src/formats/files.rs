//! File access: JSON, memory mapping, atomic replacement.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use memmap2::Mmap;
use serde_json::Value;

use crate::error::LmError;

/// Reads a JSON file.
///
/// # Errors
/// A file that cannot be read or is not JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value, LmError> {
    let text = std::fs::read_to_string(path).map_err(|e| LmError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| LmError::file(path, format!("not JSON: {e}")))
}

/// Maps a file into memory, read-only.
pub(crate) fn map(path: &Path) -> Result<Mmap, LmError> {
    let file = File::open(path).map_err(|e| LmError::file(path, e))?;
    if !file.metadata().map_err(|e| LmError::file(path, e))?.is_file() {
        return Err(LmError::file(path, "is not a file"));
    }
    // SAFETY: the mapping is read-only and is dropped before the reader returns. If another process
    // truncates the file meanwhile, this process crashes, as with any mapped model; our own writers
    // replace files and never change them in place.
    unsafe { Mmap::map(&file) }.map_err(|e| LmError::file(path, e))
}

/// Replaces a file atomically.
pub(crate) fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), LmError> {
    leyden_core::write_atomically(path, fill)
        .map_err(|e| LmError::file(path, format!("cannot be written: {e}")))
}
