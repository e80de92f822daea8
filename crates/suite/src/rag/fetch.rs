//! Downloads MuSiQue from the hub: the official JSONL files, or their Parquet conversion.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use leyden_hub::{Hub, Repository};

use crate::fetch::{JsonlFiles, Written, split};

/// Part of the names of the official files of answerable questions. The other files contain each
/// question twice and are twice as large.
const ANSWERABLE: &str = "_ans_";

/// Downloads the JSONL and Parquet files of the dataset `id` and writes them as JSONL into
/// `out`; unless `all` is set, only those of answerable questions if the file names distinguish
/// them. Rows without an answer, as in the official test split, are skipped.
///
/// # Errors
/// Errors of the hub and of the file system; a dataset without such files or without tasks.
pub fn fetch(hub: &Hub, id: &str, out: &Path, all: bool) -> Result<Written> {
    let repository = Repository::dataset(id);
    let mut files = hub.files(&repository)?;
    files.retain(|file| file.ends_with(".jsonl") || file.ends_with(".parquet"));
    if files.is_empty() {
        bail!("{repository} has neither a JSONL nor a Parquet file");
    }
    let answerable = |file: &String| file.contains(ANSWERABLE);
    let mut others = Vec::new();
    if !all && files.iter().any(answerable) {
        (files, others) = files.into_iter().partition(answerable);
    }
    let mut written = JsonlFiles::new(out, &["id", "question", "answer"]);
    for file in &files {
        let path = hub.fetch(&repository, file)?;
        written.file(&path, |_| output_path(file))?;
    }
    let mut written = written.finish()?;
    if !others.is_empty() {
        written.notes.push(format!("not downloaded without --all: {}", others.join(", ")));
    }
    Ok(written)
}

/// Output path: JSONL files keep their names; the parts of a split are merged into one file.
fn output_path(file: &str) -> PathBuf {
    if file.ends_with(".jsonl") {
        return PathBuf::from(file);
    }
    Path::new(file).with_file_name(format!("{}.jsonl", split(file)))
}
