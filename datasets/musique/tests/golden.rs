//! Comparison with the official evaluator, and with the dataset itself.

use leyden_core::shared_material;
use leyden_musique::{corpus, golden, loader};

#[test]
fn the_measures_agree_with_the_official_evaluator() {
    let Some(path) = shared_material("fixtures/scores/musique.jsonl") else { return };
    let report = golden::check(path).unwrap();
    assert!(report.holds(), "\n{report}");
    assert!(report.families.iter().all(|family| family.cases == 600), "\n{report}");
}

/// Wrong golden values must make the report fail.
#[test]
fn disagreement_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cases.jsonl");
    let holds = |em: f64, f1: f64, support: [f64; 2]| {
        let case = serde_json::json!({
            "prediction": "new york", "golds": ["New York City"], "em": em, "f1": f1,
            "pred_support": [1], "gold_support": [1, 2], "support": support,
        });
        std::fs::write(&path, case.to_string()).unwrap();
        golden::check(&path).unwrap().holds()
    };
    let two_thirds = 2.0 / 3.0;
    assert!(holds(0.0, 0.8, [0.0, two_thirds]));
    assert!(!holds(1.0, 0.8, [0.0, two_thirds]));
    assert!(!holds(0.0, 0.81, [0.0, two_thirds]));
    assert!(!holds(0.0, 0.8, [1.0, two_thirds]));
    assert!(!holds(0.0, 0.8, [0.0, 0.66]));
}

#[test]
fn the_dataset_loads_completely() {
    let Some(folder) = shared_material("data/musique") else { return };
    let dev = loader::from_file(folder.join("musique_ans_dev_subset.jsonl")).unwrap();
    assert_eq!((dev.tasks.len(), dev.rejected.len()), (150, 0));
    for task in &dev.tasks {
        let hops: usize = task.label("hops").unwrap().parse().unwrap();
        assert_eq!(corpus::supporting(task).len(), hops, "{}", task.id);
    }
    assert_eq!(corpus::passages(&dev.tasks).len(), 2503);
    let train = loader::from_file(folder.join("train_questions_answers.json")).unwrap();
    assert_eq!((train.tasks.len(), train.rejected.len()), (19_938, 0));
}
