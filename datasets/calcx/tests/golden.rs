//! Comparison with the original calculator, the original scorer, and the dataset itself.

use std::path::Path;

use leyden_calcx::{chain, golden, loader, scorer};
use leyden_core::{golden_file, shared_material};

#[test]
fn the_calculator_agrees_with_the_original() {
    let paths = [
        Some(golden_file("calculator.jsonl")),
        shared_material("fixtures/scores/calculator.jsonl"),
    ];
    for path in paths.into_iter().flatten() {
        let report = golden::check_calculator(path).unwrap();
        assert!(report.holds(), "\n{report}");
        assert!(report.families[0].cases > 250, "\n{report}");
    }
}

#[test]
fn the_scorer_agrees_with_the_original() {
    let paths = [Some(golden_file("calcx.jsonl")), shared_material("fixtures/scores/calcx.jsonl")];
    for path in paths.into_iter().flatten() {
        let report = golden::check_calcx(path).unwrap();
        assert!(report.holds(), "\n{report}");
        let cases: usize = report.families.iter().map(|family| family.cases).sum();
        assert!(cases > 300, "\n{report}");
    }
}

/// Real rows load without loss, and every output in their chains equals the calculator's.
#[test]
fn the_dataset_loads_and_its_chains_are_demonstrations() {
    let Some(folder) = shared_material("data/calcx") else { return };
    let files = [
        ("gsm8k_train.jsonl", 7473, vec![]),
        ("gsm8k_test.jsonl", 1319, vec![]),
        // Rows whose chain or equation contradicts their result.
        ("svamp.jsonl", 1000, vec![("other result", 1)]),
        ("aqua_rat_validation.jsonl", 254, vec![]),
        ("aqua_rat_test.jsonl", 254, vec![]),
        ("mawps_qa.jsonl", 1921, vec![("other result", 6)]),
    ];
    for (file, rows, flaws) in files {
        let loaded = loader::from_file(folder.join(file)).unwrap();
        assert_eq!((loaded.tasks.len(), loaded.rejected.len()), (rows, 0), "{file}");
        let made = chain::demonstrations(&loaded.tasks);
        let first = made.flawed.first();
        assert_eq!(made.flaws().into_iter().collect::<Vec<_>>(), flaws, "{file}: {first:?}");
        assert_eq!(made.found.len() + made.flawed.len(), rows);
        for demonstration in &made.found {
            let Some(chain::Turn::Assistant { text, call: None }) = demonstration.turns.last()
            else {
                panic!("{file}: {} does not end in an answer", demonstration.task.id);
            };
            let answer = scorer::extract_answer(text);
            assert!(scorer::same_result(answer, &demonstration.task.gold));
        }
    }
}

#[test]
fn a_golden_file_that_is_missing_or_broken_is_named() {
    let missing = golden::check_calcx("/nowhere/calcx.jsonl").unwrap_err().to_string();
    assert!(missing.starts_with("the golden file /nowhere/calcx.jsonl cannot be read"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.jsonl");
    std::fs::write(&path, "{\"input\": \"1\", \"output\": \"1\"}\n\n{\"input\": 1}\n").unwrap();
    let broken = golden::check_calculator(&path).unwrap_err().to_string();
    assert!(broken.contains("cases.jsonl, line 3, is not a case"), "{broken}");
}

/// Wrong golden values must make the report fail.
#[test]
fn disagreement_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let check = |rows: &str| {
        let path = folder.path().join("cases.jsonl");
        std::fs::write(&path, rows).unwrap();
        golden::check_calculator(Path::new(&path)).unwrap().holds()
    };
    assert!(check("{\"input\": \"1/3\", \"output\": \"1/3 = around 0.333333\"}"));
    assert!(!check("{\"input\": \"1/3\", \"output\": \"1/3 = around 0.333334\"}"));
    assert!(!check("{\"input\": \"2+2\", \"output\": \"ERROR: no\"}"));
    assert!(check("{\"input\": \"sqrt(2)\", \"output\": \"sqrt(2) = around 1.414214\"}"));
    assert!(!check("{\"input\": \"sqrt(2)\", \"output\": \"sqrt(2) = around 1.414314\"}"));
    assert!(!check("{\"input\": \"5!\", \"output\": \"121\"}"));
}
