//! One module per command.

pub mod compare;
pub mod credit;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod kernels;
pub mod model;
pub mod recall;
pub mod report;
pub mod rollouts;
pub mod run;
pub mod score;
pub mod serve;
pub mod sft;
pub mod sweep;
pub mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Writes a command's results as indented JSON.
fn write_json(path: &Path, figures: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(figures)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The folder for new output: `out`, or the first free one in runs/ named `name`. It is not created.
fn new_folder(out: Option<&Path>, name: &str) -> Result<PathBuf> {
    if let Some(out) = out {
        if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{}: this folder is not empty; choose another one", out.display());
        }
        return Ok(out.to_owned());
    }
    let runs = Path::new("runs");
    let numbered = |number: usize| match number {
        1 => runs.join(name),
        _ => runs.join(format!("{name}-{number}")),
    };
    (1..10_000)
        .map(numbered)
        .find(|path| !path.exists())
        .with_context(|| format!("runs/ is full of folders {name}; choose one with --out"))
}

#[cfg(test)]
mod tests {
    use super::new_folder;

    #[test]
    fn results_are_never_written_into_a_folder_that_has_some() {
        let full = tempfile::tempdir().unwrap();
        let free = full.path().join("new");
        assert_eq!(new_folder(Some(&free), "x").unwrap(), free);
        std::fs::write(full.path().join("x"), "").unwrap();
        let error = new_folder(Some(full.path()), "x").unwrap_err().to_string();
        assert!(error.ends_with("this folder is not empty; choose another one"), "{error}");
    }
}
