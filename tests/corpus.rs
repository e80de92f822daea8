//! The corpus of the fuzz targets, without instrumentation: no input may panic or abort.

use std::fs;

use crate::common::checkout;

#[path = "fuzz/src/targets.rs"]
mod targets;

/// Replays every input of a target.
fn replay(name: &str) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    let folder = checkout().join("tests/fuzz/corpus").join(name);
    let mut inputs: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{name} has no inputs");
    for path in inputs {
        // A panic is reported with the input that was last printed.
        println!("{}", path.display());
        target(&fs::read(path).unwrap());
    }
}

#[test]
fn every_target_has_a_corpus() {
    let corpus = fs::read_dir(checkout().join("tests/fuzz/corpus")).unwrap();
    let mut folders: Vec<String> =
        corpus.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    let mut names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
}

#[test]
fn safetensors_inputs() {
    replay("safetensors");
}

#[test]
fn gguf_inputs() {
    replay("gguf");
}

#[test]
fn tokenizer_inputs() {
    replay("tokenizer");
}

#[test]
fn chat_template_inputs() {
    replay("chat_template");
}

#[test]
fn tool_calls_inputs() {
    replay("tool_calls");
}

#[test]
fn dataset_rows_inputs() {
    replay("dataset_rows");
}

#[test]
fn experiment_toml_inputs() {
    replay("experiment_toml");
}

#[test]
fn checkpoint_inputs() {
    replay("checkpoint");
}

#[test]
fn sql_inputs() {
    replay("sql");
}

#[test]
fn calculator_inputs() {
    replay("calculator");
}
