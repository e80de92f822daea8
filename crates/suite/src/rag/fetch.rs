//! The hub's MuSiQue: the official JSONL files, or Parquet made of them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use leyden_hub::{Hub, Repository};

use crate::fetch::{JsonlFiles, Written, split};

/// What the official files of answerable questions have in their names. The others hold each
/// question twice and are as large again.
const ANSWERABLE: &str = "_ans_";

/// Downloads the JSONL and Parquet files of the dataset `id` and writes them as JSONL into
/// `out`; unless `all` is set, only those of answerable questions where the names tell. Rows
/// without an answer, as in the official test split, are left out.
///
/// # Errors
/// The hub's and the file system's; a dataset without such files or without tasks.
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
        written.file(&path, |_| place(file))?;
    }
    let mut written = written.finish()?;
    if !others.is_empty() {
        written.notes.push(format!("not fetched without --all: {}", others.join(", ")));
    }
    Ok(written)
}

/// JSONL keeps its name; the parts of a split become one file.
fn place(file: &str) -> PathBuf {
    if file.ends_with(".jsonl") {
        return PathBuf::from(file);
    }
    Path::new(file).with_file_name(format!("{}.jsonl", split(file)))
}
