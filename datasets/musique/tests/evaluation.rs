//! The official table on synthetic questions and predictions.

use std::path::{Path, PathBuf};

use leyden_core::shared_material;
use leyden_musique::{Evaluation, evaluate};
use serde_json::{Value, json};

fn question(id: &str, answer: &str, support: &[i64], answerable: bool) -> Value {
    let paragraphs: Vec<Value> = (0..4)
        .map(|idx| {
            json!({ "idx": idx, "title": "T", "paragraph_text": "x",
                    "is_supporting": support.contains(&idx) })
        })
        .collect();
    json!({ "id": id, "question": "q", "answer": answer, "answer_aliases": [],
            "paragraphs": paragraphs, "answerable": answerable,
            "question_decomposition": support.iter().map(|i| json!({ "id": i })).collect::<Vec<_>>() })
}

fn prediction(id: &str, answer: &str, support: &[i64], answerable: bool) -> Value {
    json!({ "id": id, "predicted_answer": answer, "predicted_support_idxs": support,
            "predicted_answerable": answerable })
}

fn write(folder: &Path, name: &str, lines: &[Value]) -> PathBuf {
    let path = folder.join(name);
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(&path, text.join("\n")).unwrap();
    path
}

fn run(questions: &[Value], predictions: &[Value]) -> Result<Evaluation, String> {
    let folder = tempfile::tempdir().unwrap();
    let gold = write(folder.path(), "gold.jsonl", questions);
    let pred = write(folder.path(), "pred.jsonl", predictions);
    evaluate(gold, pred).map_err(|error| error.to_string())
}

#[test]
fn means_are_over_questions_and_by_hops() {
    let questions = [
        question("a", "New York City", &[0, 1], true),
        question("b", "Paris", &[1, 2], true),
        question("c", "1952", &[0, 1, 2], true),
    ];
    // In another order than the questions: predictions are matched by id.
    let predictions = [
        prediction("c", "1952", &[0, 1, 2], true),
        prediction("a", "new york", &[0], true),
        prediction("b", "London", &[3], false),
    ];
    let evaluation = run(&questions, &predictions).unwrap();
    let all = evaluation.all;
    assert_eq!(all.questions, 3);
    assert_eq!(all.answer_em, 1.0 / 3.0);
    assert!((all.answer_f1 - (0.8 + 0.0 + 1.0) / 3.0).abs() < 1e-12);
    assert!((all.support_f1 - (2.0 / 3.0 + 0.0 + 1.0) / 3.0).abs() < 1e-12);
    assert_eq!(evaluation.by_hops[&2].answer_f1, 0.4);
    assert_eq!(evaluation.by_hops[&3].support_em, 1.0);
    // Without unanswerable questions, predicted answerability does not matter.
    assert_eq!(evaluation.sufficiency, None);
    let table = evaluation.to_string();
    assert!(table.contains("answer_f1") && table.contains("0.600"), "{table}");
}

#[test]
fn pairs_score_only_if_both_are_judged_correctly() {
    let pair = |id: &str| [question(id, "A b", &[0, 1], true), question(id, "A b", &[0], false)];
    let questions = [pair("x"), pair("y")].concat();
    let predictions = [
        prediction("x", "A", &[0, 1], true),
        prediction("x", "", &[], false),
        prediction("y", "A b", &[0, 1], true),
        prediction("y", "A b", &[0, 1], true),
    ];
    let evaluation = run(&questions, &predictions).unwrap();
    // `A` is an article, so the reference has one token, `b`, and the answer none.
    assert_eq!((evaluation.all.questions, evaluation.all.answer_f1), (2, 0.5));
    let pairs = evaluation.sufficiency.unwrap();
    assert_eq!(pairs.pairs, 2);
    assert_eq!(pairs.group_answer_sufficiency_f1, 0.0);
    assert_eq!(pairs.group_support_sufficiency_f1, 0.5);
    let json = serde_json::to_value(&evaluation).unwrap();
    assert_eq!(json["group_support_sufficiency_f1"], 0.5);
    let error = run(&questions[..3], &predictions[..3]).unwrap_err();
    assert!(error.starts_with("the question y must occur twice"), "{error}");
}

#[test]
fn missing_items_are_named_in_errors() {
    let questions = [question("a", "A1", &[0], true), question("b", "B1", &[0], true)];
    let predictions = [prediction("a", "A1", &[0], true), prediction("b", "B1", &[0], true)];
    let check = |questions: &[Value], predictions: &[Value], expected: &str| {
        let error = run(questions, predictions).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(&questions, &predictions[..1], "has no prediction for the question b (1 are missing");
    check(&questions[..1], &predictions, "has more predictions for b than");
    check(&[], &[], "there is no question in the file");
    let twice = [predictions.clone(), predictions.clone()].concat();
    check(&questions, &twice, "has more predictions for a than");
    let mut no_support = predictions.clone();
    no_support[1].as_object_mut().unwrap().remove("predicted_support_idxs");
    check(&questions, &no_support, "pred.jsonl, line 2, is not a prediction: missing field");
    check(&[json!([])], &predictions, "gold.jsonl, line 1, is not a question");
    let error = evaluate("/nowhere/a", "/nowhere/b").unwrap_err().to_string();
    assert!(error.starts_with("the file /nowhere/a cannot be read"), "{error}");
}

/// The references as predictions score 1 everywhere.
#[test]
fn the_references_of_the_dataset_score_one() {
    let Some(gold) = shared_material("data/musique/musique_ans_dev_subset.jsonl") else { return };
    let predictions: Vec<Value> = std::fs::read_to_string(&gold)
        .unwrap()
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let support: Vec<i64> = row["paragraphs"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|p| p["is_supporting"] == true)
                .map(|p| p["idx"].as_i64().unwrap())
                .collect();
            prediction(row["id"].as_str().unwrap(), row["answer"].as_str().unwrap(), &support, true)
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let evaluation = evaluate(gold, write(folder.path(), "pred.jsonl", &predictions)).unwrap();
    let all = evaluation.all;
    assert_eq!((all.questions, all.answer_em, all.answer_f1), (150, 1.0, 1.0));
    assert_eq!((all.support_em, all.support_f1), (1.0, 1.0));
    assert_eq!(evaluation.by_hops.values().map(|means| means.questions).sum::<usize>(), 150);
}
