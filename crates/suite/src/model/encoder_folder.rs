//! Files of sentence encoder folders: listing, hashing, copying.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use leyden_train::provenance::{hash, hash_file};
use serde_json::{Map, Value, json};

/// File with the origin of an imported folder, which is not part of the model.
pub const IMPORTED: &str = "imported.json";

/// Extensions of the files that determine an encoder's embeddings.
const READ: [&str; 2] = ["json", "safetensors"];
/// Extensions of further files to copy: vocabularies, description, licence.
const COPIED: [&str; 2] = ["txt", "md"];

/// SHA-256 of each file that determines the embeddings, by its path in the folder.
///
/// # Errors
/// Files that cannot be read.
pub fn hashes(folder: &Path) -> Result<Map<String, Value>> {
    let mut hashes = Map::new();
    for file in files(folder, &READ)? {
        let path = folder.join(&file);
        let sha256 = hash_file(&path).with_context(|| path.display().to_string())?;
        hashes.insert(file.display().to_string(), json!(sha256));
    }
    Ok(hashes)
}

/// Hash over all these files: two folders have the same fingerprint only if they contain the same
/// encoder.
///
/// # Errors
/// As [`hashes`].
pub fn fingerprint(folder: &Path) -> Result<String> {
    Ok(hash(Value::from(hashes(folder)?).to_string().as_bytes()))
}

/// Copies the files of the encoder in `from` into the folder `to`.
///
/// # Errors
/// Errors of the file system.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let known: Vec<&str> = READ.into_iter().chain(COPIED).collect();
    for file in files(from, &known)? {
        let target = to.join(&file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::copy(from.join(&file), &target).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

/// The files with these extensions, in `folder` and one level below, in alphabetical order.
fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            found.extend(entries(&path)?);
        } else {
            found.push(path);
        }
    }
    let belongs = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        path.is_file() && extensions.contains(&extension) && !path.ends_with(IMPORTED)
    };
    let inner = |path: PathBuf| path.strip_prefix(folder).map(Path::to_owned).ok();
    let mut found: Vec<PathBuf> = found.into_iter().filter(belongs).filter_map(inner).collect();
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_encoder_and_another_pooling_is_not() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for (file, text) in [
            ("config.json", "{}"),
            ("1_Pooling/config.json", "{}"),
            ("vocab.txt", "a"),
            (".gitattributes", "x"),
            ("pytorch_model.bin", "x"),
            ("onnx/model.onnx", "x"),
        ] {
            let path = from.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        copy(&from, &to).unwrap();
        let copied = files(&to, &["json", "txt", "bin", "onnx"]).unwrap();
        assert_eq!(
            copied,
            ["1_Pooling/config.json", "config.json", "vocab.txt"].map(PathBuf::from)
        );
        assert!(!to.join("onnx").exists() && !to.join(".gitattributes").exists());
        let original = fingerprint(&from).unwrap();
        fs::write(to.join(IMPORTED), "{}").unwrap();
        assert_eq!(fingerprint(&to).unwrap(), original);
        fs::write(to.join("1_Pooling/config.json"), "{ }").unwrap();
        assert_ne!(fingerprint(&to).unwrap(), original);
        assert!(fingerprint(&root.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
