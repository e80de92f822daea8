//! `leyden verify`: golden files are recomputed, and the exit code reports whether all agree.

use std::fs;

use crate::common::{assert_contains, checkout, leyden, output_text, refused, succeeds};
use leyden_core::shared_material;

/// Golden files of the checkout; `tests/golden/README.md` describes their origin.
#[test]
fn golden_files_of_the_checkout_agree() {
    for (command, file, cases) in [
        (&["verify", "llama"][..], "llama", 100),
        (&["verify", "rl"], "rl.json", 200),
        (&["verify", "scores", "calcx"], "calcx.jsonl", 300),
        (&["verify", "scores", "calculator"], "calculator.jsonl", 300),
    ] {
        let (stdout, _) = succeeds(leyden(command).arg(checkout().join("tests/golden").join(file)));
        assert!(stdout.lines().all(|line| line.starts_with("ok")), "{file}: {stdout}");
        let counted = stdout.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let place = words.iter().position(|word| *word == "cases")?;
            words[place - 1].parse::<usize>().ok()
        });
        assert!(counted.sum::<usize>() >= cases, "{file}: {stdout}");
    }
}

#[test]
fn shared_golden_files_agree() {
    let cases: [(&[&str], &str); 5] = [
        (&["verify", "llama"], "fixtures/llama_parity"),
        (&["verify", "rl"], "fixtures/rl/verl.json"),
        (&["verify", "scores", "calcx"], "fixtures/scores/calcx.jsonl"),
        (&["verify", "scores", "calculator"], "fixtures/scores/calculator.jsonl"),
        (&["verify", "scores", "musique"], "fixtures/scores/musique.jsonl"),
    ];
    for (command, file) in cases {
        let Some(path) = shared_material(file) else { continue };
        let (stdout, _) = succeeds(leyden(command).arg(path));
        assert!(stdout.lines().all(|line| line.starts_with("ok")), "{stdout}");
    }
    if let (Some(cases), Some(data)) =
        (shared_material("fixtures/scores/spider.jsonl"), shared_material("data/spider"))
    {
        let mut command = leyden(&["verify", "scores", "spider"]);
        let (stdout, _) = succeeds(command.arg(cases).arg("--db").arg(data));
        assert!(stdout.lines().all(|line| line.starts_with("ok")), "{stdout}");
    }
    let (Some(renderings), Some(templates)) =
        (shared_material("fixtures/chat/renderings.json"), shared_material("data/chat_templates"))
    else {
        return;
    };
    let mut command = leyden(&["verify", "chat"]);
    succeeds(command.arg(renderings).arg("--templates").arg(templates));
}

#[test]
fn official_tables_are_printed_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let gold = file(
        "gold.jsonl",
        r#"{"id": "2hop__1", "question": "q", "answer": "the North Sea", "answerable": true, "paragraphs": [{"idx": 0, "title": "t", "paragraph_text": "x", "is_supporting": true}]}
"#,
    );
    let right = r#"{"id": "2hop__1", "predicted_answer": "North Sea", "predicted_support_idxs": [0], "predicted_answerable": true}
"#;
    let (pred, json) = (file("pred.jsonl", right), folder.path().join("scores.json"));
    let mut command = leyden(&["score", "musique", "--gold"]);
    command.arg(&gold).arg("--pred").arg(&pred).arg("--json").arg(&json);
    succeeds(&mut command);
    assert!(fs::read_to_string(&json).unwrap().contains("answer_f1"));

    fs::write(&pred, right.replace("2hop__1", "2hop__2")).unwrap();
    assert_contains(&refused(&mut command), &["pred.jsonl", "2hop__1"]);

    let mut command = leyden(&["score", "spider", "--db"]);
    command.arg(folder.path()).arg("--gold").arg(&gold).arg("--pred").arg(&pred);
    assert_contains(&refused(&mut command), &["tables.json"]);
}

#[test]
fn a_modified_golden_file_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calculator.jsonl");
    let verify = || {
        let mut command = leyden(&["verify", "scores", "calculator"]);
        command.arg(&path);
        command
    };
    let good = "{\"input\": \"6*7\", \"output\": \"42\"}\n{\"input\": \"1/3\", \"output\": \"1/3 = around 0.333333\"}\n";
    fs::write(&path, good).unwrap();
    let (stdout, _) = succeeds(&mut verify());
    assert_contains(&stdout, &["ok"]);

    fs::write(&path, good.replace("42", "43")).unwrap();
    let output = verify().output().unwrap();
    let (stdout, _) = output_text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_contains(&stdout, &["FAIL", "1 disagreements", "first: ", "6*7", "43"]);

    // An empty file is a failure.
    fs::write(&path, "").unwrap();
    assert_eq!(verify().output().unwrap().status.code(), Some(1));

    fs::write(&path, "{\"input\": \n").unwrap();
    assert_contains(&refused(&mut verify()), &["calculator.jsonl", "line 1"]);
    fs::remove_file(&path).unwrap();
    assert_contains(&refused(&mut verify()), &["calculator.jsonl", "No such file"]);
}
