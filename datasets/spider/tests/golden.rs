//! Comparison with the official evaluators and with the dataset itself.

use std::path::Path;

use leyden_core::shared_material;
use leyden_spider::golden;

#[test]
fn the_scorers_agree_with_the_official_evaluators() {
    let Some(path) = shared_material("fixtures/scores/spider.jsonl") else { return };
    let Some(databases) = shared_material("data/spider/database") else { return };
    let report = golden::check(path, databases, None).unwrap();
    assert!(report.holds(), "\n{report}");
    for family in &report.families {
        assert_eq!(family.cases, 1148, "\n{report}");
    }
}

#[test]
fn a_golden_file_that_is_missing_or_broken_is_named() {
    let missing = golden::check("/nowhere/spider.jsonl", "/nowhere", None).unwrap_err().to_string();
    assert!(missing.starts_with("the golden file /nowhere/spider.jsonl cannot be read"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.jsonl");
    std::fs::write(&path, "\n{\"gold\": 1}\n").unwrap();
    let broken = golden::check(Path::new(&path), folder.path(), None).unwrap_err().to_string();
    assert!(broken.contains("cases.jsonl, line 2, is not a case"), "{broken}");
}
