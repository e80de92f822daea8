//! Downloads Calc-X from the hub and writes one file per source and split.
//!
//! The hub's Parquet files mix all sources, but experiments select files.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use leyden_hub::{Hub, Repository};
use serde_json::{Map, Value};

use crate::fetch::{JsonlFiles, Written, split};

/// Downloads the Parquet files of the dataset `id` and writes them as JSONL into `out`.
///
/// # Errors
/// Errors of the hub and of the file system; a dataset without Parquet files or tasks.
pub fn fetch(hub: &Hub, id: &str, out: &Path) -> Result<Written> {
    let repository = Repository::dataset(id);
    let files = hub.files(&repository)?;
    let parquet: Vec<&String> = files.iter().filter(|file| file.ends_with(".parquet")).collect();
    if parquet.is_empty() {
        bail!("{repository} has no Parquet file");
    }
    let mut paths = Vec::new();
    for file in parquet {
        paths.push((file, hub.fetch(&repository, file)?));
    }
    let mut written = JsonlFiles::new(out, &["id", "question", "result"]);
    for (file, path) in &paths {
        written.file(path, |row| output_path(file, row))?;
    }
    written.finish()
}

/// Output path of a row: `gsm8k_train.jsonl`. A folder other than `data` is another
/// configuration of the dataset and is kept in the path.
fn output_path(file: &str, row: &Map<String, Value>) -> PathBuf {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let folder = folder.strip_prefix("data").unwrap_or(folder).trim_start_matches('/');
    let source = row.get("source").and_then(Value::as_str).or_else(|| source_of_id(row));
    let source = file_name(source.unwrap_or("calcx"));
    Path::new(&file_name(folder)).join(format!("{source}_{}.jsonl", file_name(split(file))))
}

/// `text` with characters that are unsafe in file names replaced.
fn file_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    text.chars().map(plain).collect()
}

/// `gsm8k__abc` → `gsm8k`.
fn source_of_id(row: &Map<String, Value>) -> Option<&str> {
    row.get("id")?.as_str()?.split_once("__").map(|(source, _)| source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_are_split_by_source_and_split() {
        for (file, id, source, expected) in [
            (
                "data/train-00000-of-00002-5f.parquet",
                "gsm8k__1",
                Some("gsm8k"),
                "gsm8k_train.jsonl",
            ),
            ("data/train-0.parquet", "gsm8k__2", None, "gsm8k_train.jsonl"),
            ("original-splits/test-0.parquet", "x", None, "original-splits/calcx_test.jsonl"),
            ("a/b/validation.parquet", "x__1", None, "a_b/x_validation.jsonl"),
            ("data/test-0.parquet", "x", Some("../../x"), "______x_test.jsonl"),
        ] {
            let mut row = Map::new();
            row.insert("id".to_owned(), json!(id));
            row.extend(source.map(|source| ("source".to_owned(), json!(source))));
            assert_eq!(output_path(file, &row), Path::new(expected), "{file}");
        }
    }
}
