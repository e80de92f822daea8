//! `leyden rollouts` on the folder of a run and on a server's store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{assert_contains, leyden, quickstart, refused, succeeds};
use leyden_hub::parquet;
use leyden_serve::store::{Limits, NewCall, NewEvent, NewRollout, Store, StoredAnswer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// `leyden rollouts VERB FOLDER` with further arguments.
fn rollouts(verb: &str, folder: &Path, rest: &[&str]) -> std::process::Command {
    let mut command = leyden(&["rollouts", verb]);
    command.arg(folder).args(rest);
    command
}

fn stdout_of(verb: &str, folder: &Path, rest: &[&str]) -> String {
    succeeds(&mut rollouts(verb, folder, rest)).0
}

/// Exports in both formats and to standard output, and compares the results.
fn exported(folder: &Path, rest: &[&str]) -> Vec<Map<String, Value>> {
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { out.path().join(name) };
    let (lines, table) = (file("calls.jsonl"), file("calls.parquet"));
    succeeds(rollouts("export", folder, rest).arg("--out").arg(&lines));
    let mut as_table = rollouts("export", folder, rest);
    succeeds(as_table.args(["--format", "parquet", "--out"]).arg(&table));
    let text = fs::read_to_string(&lines).unwrap();
    assert_eq!(stdout_of("export", folder, rest), text);
    let from_lines: Vec<Map<String, Value>> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let from_table: Vec<Map<String, Value>> =
        parquet::rows(&table).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(from_lines.len(), from_table.len());
    for (line, row) in from_lines.iter().zip(&from_table) {
        assert_eq!(line.keys().collect::<Vec<_>>(), row.keys().collect::<Vec<_>>());
        for (name, value) in line {
            same(name, value, &row[name]);
        }
    }
    from_lines
}

/// Asserts equal values; 32-bit numbers may be printed with more digits than needed.
fn same(name: &str, a: &Value, b: &Value) {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!(a == b || a as f32 == b as f32, "{name}: {a} and {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{name}");
            a.iter().zip(b).for_each(|(a, b)| same(name, a, b));
        }
        _ => assert_eq!(a, b, "{name}"),
    }
}

#[test]
fn the_rollouts_of_a_run_are_listed_shown_and_exported() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    succeeds(&mut quickstart(&folder, &["train.steps=2", "checkpoint.every=2"]));

    let all = stdout_of("ls", &folder, &["--limit", "0"]);
    // Two steps of 4 tasks with 8 rollouts; evaluations of 8 tasks before and after.
    let lines = |text: &str| text.lines().filter(|line| line.contains('/')).count();
    assert!(lines(&all) >= 2 * 32 + 2 * 8, "{all}");
    assert!(all.lines().next().unwrap().starts_with("rollout"), "{all}");
    let train = stdout_of("ls", &folder, &["--step", "2", "--phase", "train", "--limit", "0"]);
    assert_eq!(lines(&train), 32);
    assert!(train.ends_with("32 rollouts\n"), "{train}");
    let few = stdout_of("ls", &folder, &["--limit", "3"]);
    assert!(lines(&few) == 3 && few.contains("; --limit 0 lists all"), "{few}");
    let good = stdout_of("ls", &folder, &["--at-least", "0.5", "--limit", "0"]);
    let poor = stdout_of("ls", &folder, &["--at-most", "0.4", "--limit", "0"]);
    let none = stdout_of("ls", &folder, &["--missing", "--limit", "0"]);
    assert_eq!(lines(&good) + lines(&poor) + lines(&none), lines(&all));

    // Training prompts are stored as ids and decoded with the trained model's tokenizer.
    let shown = stdout_of("show", &folder, &["2/train/0"]);
    for part in ["rollout 2/train/0, task ", "question: ", "reward: ", "call 1 of ", "advantage "] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(shown.contains("prompt:\n"), "{shown}");

    let rows = exported(&folder, &["--step", "2", "--phase", "train"]);
    let of = |row: &Map<String, Value>| row["rollout"].as_str().unwrap().to_owned();
    assert_eq!(rows.iter().map(of).collect::<BTreeSet<_>>().len(), 32);
    let groups: BTreeSet<&str> = rows.iter().map(|row| row["uid"].as_str().unwrap()).collect();
    assert_eq!(groups.len(), 4);
    for row in &rows {
        assert_eq!(row["step"], 2);
        assert_eq!(row["env_name"], "calc");
        assert_eq!(row["policy_version"], 1);
        assert!(row["input"].as_str().is_some_and(|input| !input.is_empty()));
        let length = |name: &str| row[name].as_array().unwrap().len();
        assert_eq!(length("response_ids"), length("response_logprobs"));
        assert_eq!(length("token_ids"), length("prompt_ids") + length("response_ids"));
        assert_eq!(length("temperatures"), length("token_ids"));
        assert!(row["advantage"].is_number(), "{row:?}");
    }
    assert_eq!(exported(&folder, &["--columns", "prime-rl", "--limit", "1"])[0].len(), 6);
}

/// A server's store with one rollout with a reward, and one whose agent died.
fn server() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Limits::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let new = |id: &str, is_train| NewRollout {
        id: Some(id.to_owned()),
        input: json!({ "data_id": "task-7", "question": "6 × 7?" }),
        is_train,
        config: Map::new(),
        metadata: Map::new(),
        claimable: false,
        hosted: false,
    };
    let event = |id: &str, kind: &str, data: Value, call| NewEvent {
        rollout_id: id.to_owned(),
        attempt_id: "0".to_owned(),
        event_type: kind.to_owned(),
        data: data.to_string(),
        key: None,
        call,
    };
    let answer = StoredAnswer {
        content: "let me see".to_owned(),
        tool_calls: r#"[{"id":"1","name":"calc","arguments":"{}"}]"#.to_owned(),
        malformed_call: None,
        finish: "stop".to_owned(),
        stop_text: None,
        prompt_ids: vec![1, 2, 3],
        response_ids: vec![4, 5],
        logprobs: vec![-0.5, -0.25],
        cached_tokens: 0,
        policy_version: 9,
        constrained: true,
    };
    let call = NewCall {
        endpoint: "chat/completions",
        role: Some("solver".to_owned()),
        body: [0; 16],
        answers: vec![answer],
    };
    let request = json!({ "request": { "temperature": 0.5, "messages": [{ "role": "user" }] } });
    runtime.block_on(async {
        store.create(vec![new("good", true), new("dead", false)]).await.unwrap();
        for event in [
            event("good", "model_request", request, Some(call)),
            event("good", "signal", json!({ "kind": "tool_error", "detail": "no" }), None),
            event("good", "answer", json!({ "value": "42" }), None),
            event("good", "reward", json!({ "value": 0.75 }), None),
        ] {
            store.append(event).await.unwrap();
        }
    });
    store.close();
    folder
}

#[test]
fn the_rollouts_of_a_server_are_listed_shown_and_exported() {
    let folder = server();
    let all = stdout_of("ls", folder.path(), &[]);
    assert!(all.contains("good") && all.contains("0.750") && all.contains("dead"), "{all}");
    let train = stdout_of("ls", folder.path(), &["--phase", "train", "--at-least", "0.7"]);
    assert!(train.ends_with("1 rollout\n"), "{train}");
    let missing = stdout_of("ls", folder.path(), &["--missing"]);
    assert!(missing.contains("no reward was reported"), "{missing}");

    let shown = stdout_of("show", folder.path(), &["good"]);
    for part in ["question: 6 × 7?", "answer: 42", "reward: 0.75", "signal: tool error: no"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let rows = exported(folder.path(), &[]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["uid"], "task-7");
    assert_eq!(rows[0]["step"], Value::Null);
    assert_eq!(rows[0]["token_ids"], json!([1, 2, 3, 4, 5]));
    // The sampler was constrained by a grammar: no token may be trained on.
    assert_eq!(rows[0]["mask"], json!([false, false, false, false, false]));
    assert_eq!(rows[0]["temperatures"], json!([0.5, 0.5, 0.5, 0.5, 0.5]));
    assert_eq!(rows[0]["policy_version"], 9);

    let refusal = refused(&mut rollouts("ls", folder.path(), &["--step", "1"]));
    assert_contains(&refusal, &["--step", "a server's store has no steps"]);
    let refusal = refused(&mut rollouts("ls", folder.path(), &["--phase", "greedy"]));
    assert_contains(&refusal, &["train and val", "greedy"]);
    let refusal = refused(&mut rollouts("show", folder.path(), &["other"]));
    assert_contains(&refusal, &["no rollout `other`"]);
}

#[test]
fn errors_name_unreadable_files() {
    let home = tempfile::tempdir().unwrap();
    let refusal = |rest: &[&str]| refused(&mut rollouts("ls", home.path(), rest));
    assert_contains(&refusal(&[]), &["has no rollouts.sqlite", "leyden serve --store"]);
    let nowhere = home.path().join("nowhere");
    assert_contains(
        &refused(&mut rollouts("ls", &nowhere, &[])),
        &["there is no run folder at", "nowhere"],
    );

    let file = home.path().join("rollouts.sqlite");
    fs::write(&file, "a text that is long enough to be taken for a file of SQLite, but is none")
        .unwrap();
    assert_contains(&refusal(&[]), &["rollouts.sqlite", "not a SQLite file"]);

    // A server's store with all pages but the first overwritten.
    let server = server();
    let store = server.path().join("rollouts.sqlite");
    let mut bytes = fs::read(&store).unwrap();
    let length = bytes.len();
    bytes[8192..length].fill(0x5a);
    fs::write(&store, bytes).unwrap();
    assert_contains(&refused(&mut rollouts("ls", server.path(), &[])), &["malformed"]);

    let out = home.path().join("missing").join("x.parquet");
    fs::remove_file(&file).unwrap();
    let parquet = ["--format", "parquet"];
    let healthy = self::server();
    let refusal = refused(&mut rollouts("export", healthy.path(), &parquet));
    assert_contains(&refusal, &["--out", "--out is required for Parquet"]);
    let refusal = refused(rollouts("export", healthy.path(), &parquet).arg("--out").arg(&out));
    assert_contains(&refusal, &["cannot write", "x.parquet"]);
}
