//! `leyden score` on predictions of all three datasets: hand-written, in several formats, and from
//! `leyden eval`, whose rewards it must reproduce.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{assert_contains, leyden, lines, refused, succeeds};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A generated dataset as files, and its test tasks as rows.
fn world(name: &str, test: &str) -> (TempDir, PathBuf, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let make = ["data", "make", name, "--seed", "3", "--train", "0", "--test", "6"];
    succeeds(leyden(&make).arg("--out").arg(folder.path()));
    let path = folder.path().join(test);
    let text = fs::read_to_string(&path).unwrap();
    let rows = match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) => rows,
        _ => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    };
    assert_eq!(rows.len(), 6);
    (folder, path, rows)
}

fn score(dataset: &str, gold: &Path, pred: &Path) -> Command {
    let mut command = leyden(&["score", dataset, "--gold"]);
    command.arg(gold).arg("--pred").arg(pred);
    if dataset == "spider" {
        command.arg("--db").arg(gold.parent().unwrap());
    }
    command
}

/// A command's standard output and its JSON results.
fn figures(command: &mut Command, folder: &Path) -> (String, Value) {
    let out = folder.join("figures.json");
    let (text, _) = succeeds(command.arg("--json").arg(&out));
    (text, serde_json::from_slice(&fs::read(out).unwrap()).unwrap())
}

fn write(folder: &Path, name: &str, lines: &[Value]) -> PathBuf {
    let path = folder.join(name);
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(&path, text.join("\n")).unwrap();
    path
}

/// Scores of prediction files equal the rewards recorded by the evaluation, in both modes.
#[test]
fn scores_equal_the_rewards_of_evaluations() {
    for (agent, name, test, dataset) in [
        ("calc", "mini-calc", "test.jsonl", "calcx"),
        ("sql", "mini-spider", "dev.json", "spider"),
        ("rag", "mini-musique", "test.jsonl", "musique"),
    ] {
        let (folder, path, _) = world(name, test);
        let out = folder.path().join("eval");
        let mut eval = leyden(&["eval", "--agent", agent, "--model", "tiny", "--limit", "4"]);
        succeeds(eval.arg("--data").arg(&path).arg("--out").arg(&out));
        let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let pred = out.join("predictions.jsonl");
        let both = refused(&mut score(dataset, &path, &pred));
        assert_contains(&both, &["predictions.jsonl", "greedy and sampled", "--mode"]);
        for record in lines(&metrics, "eval") {
            let mode = record["mode"].as_str().unwrap();
            // The evaluation covered four of the six questions, spread over the file.
            let all = refused(score(dataset, &path, &pred).args(["--mode", mode]));
            assert_contains(
                &all,
                &["no answer to the question", "2 of 6 are missing", "--partial"],
            );
            let mut command = score(dataset, &path, &pred);
            command.args(["--partial", "--mode", mode]);
            let (text, figures) = figures(&mut command, folder.path());
            assert_contains(&text, &["left out: 2 questions", "as recorded beside all 4 answers"]);
            let mean = record["reward_mean"].as_f64().unwrap();
            assert_eq!(figures["reward"]["mean"].as_f64(), Some(mean), "{text}");
            let own = match dataset {
                "calcx" => &figures["accuracy"],
                "musique" => &figures["answer_f1"],
                _ => &figures["levels"][4]["execution"],
            };
            assert!((own.as_f64().unwrap() - mean).abs() < 1e-12, "{text}");
        }
    }
}

#[test]
fn calc_x_answers_are_counted_by_outcome() {
    let (folder, path, rows) = world("mini-calc", "test.jsonl");
    let right = |row: &Value| format!("So ### ANSWER: {} ###", row["result"].as_str().unwrap());
    let answers = [
        json!(right(&rows[0])),
        json!(right(&rows[1])),
        json!("### ANSWER: 1000000 ###"),
        json!("many"),
        Value::Null,
        json!("-1000000"),
    ];
    let rewards = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let line = |(row, (answer, reward)): (&Value, (&Value, f64))| json!({ "mode": "greedy", "id": row["id"], "answer": answer, "reward": reward });
    let mut named: Vec<Value> =
        rows.iter().zip(answers.iter().zip(rewards)).map(line).rev().collect();
    let pred = write(folder.path(), "named.jsonl", &named);
    let (text, by_id) = figures(&mut score("calcx", &path, &pred), folder.path());
    assert_contains(
        &text,
        &["all          6      2      2              1           1  0.333 [0.097, 0.700]"],
    );
    assert_contains(
        &text,
        &["reward  0.333 [0.097, 0.700] over 6 questions", "as recorded beside all 6"],
    );
    let counts = ["right", "wrong", "not_evaluable", "unanswered"].map(|name| by_id[name].as_u64());
    assert_eq!(counts, [2, 2, 1, 1].map(Some));

    // One line of plain text per question, in order.
    let plain = folder.path().join("plain.txt");
    let text: Vec<&str> = answers.iter().map(|answer| answer.as_str().unwrap_or("")).collect();
    fs::write(&plain, text.join("\n") + "\n\n").unwrap();
    let (_, in_order) = figures(&mut score("calcx", &path, &plain), folder.path());
    assert_eq!(in_order["by_source"], by_id["by_source"]);
    assert_eq!(in_order["reward"]["mean"], by_id["reward"]["mean"]);

    // A reward that differs from the recorded one is reported.
    named[5]["reward"] = json!(0.0);
    let pred = write(folder.path(), "named.jsonl", &named);
    let (text, _) = succeeds(&mut score("calcx", &path, &pred));
    assert_contains(
        &text,
        &["other than recorded: 1 of 6", "mini-calc/test/0000: 0 recorded, 1 here"],
    );
}

#[test]
fn mismatched_predictions_are_reported() {
    let (folder, path, rows) = world("mini-calc", "test.jsonl");
    let answer = |row: &Value| json!({ "id": row["id"], "answer": "1" });
    let all: Vec<Value> = rows.iter().map(answer).collect();
    let check = |lines: &[Value], words: &[&str]| {
        let pred = write(folder.path(), "pred.jsonl", lines);
        assert_contains(&refused(&mut score("calcx", &path, &pred)), words);
    };
    check(&all[..4], &["pred.jsonl has no answer to the question mini-calc/test/0004", "2 of 6"]);
    let mut unknown = all.clone();
    unknown[2]["id"] = json!("nobody");
    check(&unknown, &["pred.jsonl, line 3: there is no question nobody in ", "test.jsonl"]);
    let twice = [&all[..], &all[..1]].concat();
    check(&twice, &["pred.jsonl, line 7", "mini-calc/test/0000 was answered before, in line 1"]);
    let mut without = all.clone();
    without[1].as_object_mut().unwrap().remove("answer");
    check(&without, &["pred.jsonl, line 2", "there is no field answer"]);
    check(&[json!("1"), json!("2")], &["has 2 answers for 6 questions", "a blank line"]);
    let pred = write(folder.path(), "pred.jsonl", &all);
    let other = refused(score("calcx", &path, &pred).args(["--mode", "greedy"]));
    assert_contains(&other, &["--mode greedy", "pred.jsonl has no modes"]);
    let world = refused(&mut score("calcx", Path::new("mini-calc"), &pred));
    assert_contains(&world, &["mini-calc", "leyden data make"]);

    // Questions can be selected by row.
    let first = write(folder.path(), "first.jsonl", &all[..2]);
    let rows_of = PathBuf::from(format!("{}:0..2", path.display()));
    assert_contains(
        &succeeds(&mut score("calcx", &rows_of, &first)).0,
        &["reward", "over 2 questions"],
    );
    // None of the selected questions has an answer.
    let others = PathBuf::from(format!("{}:2..4", path.display()));
    let empty = write(folder.path(), "empty.jsonl", &[]);
    assert_contains(&refused(score("calcx", &others, &empty).arg("--partial")), &["empty.jsonl"]);

    // Lines without ids are matched to rows by order, so no row may be invalid.
    let bad = folder.path().join("bad.jsonl");
    fs::write(&bad, format!("{}\n{{\"id\": \"b\"}}\n", rows[0])).unwrap();
    let plain = folder.path().join("plain.txt");
    fs::write(&plain, "1\n2\n").unwrap();
    assert_contains(
        &refused(&mut score("calcx", &bad, &plain)),
        &["bad.jsonl", "line 2 (id b)", "order"],
    );
}

#[test]
fn incomplete_or_unscorable_spider_predictions() {
    let (folder, path, rows) = world("mini-spider", "dev.json");
    let mut queries: Vec<&str> = rows.iter().map(|row| row["query"].as_str().unwrap()).collect();
    let pred = folder.path().join("pred.sql");
    fs::write(&pred, queries.join("\n")).unwrap();
    let (_, right) = figures(&mut score("spider", &path, &pred), folder.path());
    assert_eq!(
        (&right["levels"][4]["count"], &right["levels"][4]["execution"]),
        (&json!(6), &json!(1.0))
    );
    queries.pop();
    fs::write(&pred, queries.join("\n")).unwrap();
    assert_contains(
        &refused(&mut score("spider", &path, &pred)),
        &["pred.sql has 5 predictions for 6 "],
    );
    let official = refused(score("spider", &path, &pred).args(["--mode", "greedy"]));
    assert_contains(&official, &["--mode", "pred.sql", "have no question ids"]);

    // An invalid reference query excludes only its own question and is reported.
    let mut broken = rows.clone();
    broken[1]["query"] = json!("SELECT nothing FROM nowhere");
    fs::write(&path, json!(broken).to_string()).unwrap();
    let id = rows[1]["id"].as_str().unwrap();
    let answers: Vec<Value> =
        rows.iter().map(|row| json!({ "id": row["id"], "answer": row["query"] })).collect();
    let pred = write(folder.path(), "pred.jsonl", &answers);
    let (text, figures) = figures(&mut score("spider", &path, &pred), folder.path());
    assert_contains(&text, &["not scored: 1", &format!("question 2 ({id}): ")]);
    assert_contains(
        &text,
        &[&format!("task {id} cannot be scored: its reference query does not run")],
    );
    assert_eq!(figures["levels"][4]["count"], 5);
    assert_eq!(figures["reward"]["mean"], 1.0);
}

#[test]
fn musique_answers_are_extracted_from_messages() {
    let (folder, path, rows) = world("mini-musique", "test.jsonl");
    let span = |row: &Value| format!("It is <answer>{}</answer>", row["answer"].as_str().unwrap());
    let mut answers: Vec<Value> =
        rows.iter().map(|row| json!({ "id": row["id"], "answer": span(row) })).collect();
    answers[1]["answer"] = rows[1]["answer"].clone();
    answers[2]["answer"] = json!("<answer>nobody at all</answer>");
    let pred = write(folder.path(), "pred.jsonl", &answers);
    let (text, plain) = figures(&mut score("musique", &path, &pred), folder.path());
    assert_contains(
        &text,
        &["2 hops", "3 hops", "all             6      0.667      0.667        0.833"],
    );
    assert!((plain["reward"]["mean"].as_f64().unwrap() - 4.0 / 6.0).abs() < 1e-12);
    let mut with_format = score("musique", &path, &pred);
    let (_, formatted) = figures(with_format.args(["--reward", "f1_format"]), folder.path());
    let expected = (4.0 + 0.1) / 6.0;
    assert!((formatted["reward"]["mean"].as_f64().unwrap() - expected).abs() < 1e-12);
    let unknown = refused(score("musique", &path, &pred).args(["--reward", "bleu"]));
    assert_contains(&unknown, &["--reward", "bleu", "f1_format"]);
}
