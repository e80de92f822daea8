//! Parity with transformers.

use std::path::Path;

use leyden_core::{golden_file, shared_material};
use leyden_lm::golden::check_llama;

fn holds(folder: &Path) {
    let report = check_llama(folder).unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}");
}

#[test]
fn llama_agrees_with_transformers() {
    holds(&golden_file("llama"));
}

#[test]
fn a_second_llama_agrees_with_transformers() {
    let Some(folder) = shared_material("fixtures/llama_parity") else { return };
    holds(&folder);
}
