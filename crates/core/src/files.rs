//! Atomic file writes: safe against concurrent readers and a killed process.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Prefix of the names of temporary files.
const PREFIX: &str = ".writing-";

/// Replaces a file atomically: writes a temporary file in the same folder, syncs it to disk and
/// renames it over `path`.
///
/// # Errors
/// File system errors (a full disk, for example) and errors of `fill`; an existing file is then
/// left unchanged.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The usual permissions: a temporary file is otherwise readable by its owner only.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
    fill(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    // The rename is durable only once the folder is synced.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Removes the temporary files that a process killed within [`write_atomically`] left in `folder`.
/// No other process may write there at the same time. A folder that does not exist has none.
///
/// # Errors
/// File system errors.
pub fn remove_unfinished_files(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(PREFIX) && path.is_file() {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomically(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, |out| out.write_all(b"whole")).unwrap();
        // A killed process does not remove its temporary file.
        let killed = write_atomically(&path, |_| {
            let entries = std::fs::read_dir(folder.path())?.map(|entry| entry.unwrap().path());
            let unfinished: Vec<_> = entries.filter(|entry| *entry != path).collect();
            assert_eq!(unfinished.len(), 1);
            std::fs::hard_link(&unfinished[0], folder.path().join(".writing-left"))?;
            Err(io::Error::other("killed"))
        });
        assert!(killed.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        remove_unfinished_files(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        remove_unfinished_files(&folder.path().join("none")).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn written_files_have_the_usual_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (plain, whole) = (folder.path().join("plain"), folder.path().join("whole"));
        std::fs::write(&plain, "x").unwrap();
        write_atomically(&whole, |out| out.write_all(b"x")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain), "workers of other users share a sweep's folder");
    }
}
