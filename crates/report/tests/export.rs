//! Exports: JSON lines and Parquet round-trip the contents of the store.

use std::path::Path;

use leyden_hub::parquet;
use leyden_report::export::{
    Call, ExportError, Filter, JsonLines, ParquetFile, Reader, Rollout, RowWriter, RunStore,
    Signal, columns_of,
};
use proptest::prelude::*;
use rusqlite::{Connection, params};
use serde_json::{Map, Value};

const SCHEMA: &str = "
    CREATE TABLE rollouts(step INTEGER, phase TEXT, id INTEGER, task_id TEXT, grp INTEGER,
        question TEXT, gold TEXT, answer TEXT, reward REAL, missing TEXT, labels TEXT,
        PRIMARY KEY(step, phase, id)) WITHOUT ROWID;
    CREATE TABLE calls(step INTEGER, phase TEXT, rollout INTEGER, idx INTEGER, role TEXT,
        prompt_ids BLOB, response_ids BLOB, logprobs BLOB, prompt_text TEXT, text TEXT,
        finish TEXT, policy_version INTEGER, credit REAL, advantage REAL,
        PRIMARY KEY(step, phase, rollout, idx)) WITHOUT ROWID;
    CREATE TABLE signals(step INTEGER, phase TEXT, rollout INTEGER, call INTEGER, kind TEXT,
        detail TEXT);";

const CONFIG: &str = "name = \"x\"\n[agent]\nname = \"calc\"\n[rollout]\ntemperature = 1.0\n[eval]\ntemperature = 0.7\n";

/// Writes rollouts as a run does. The number within the step is the position.
fn store(folder: &Path, rollouts: &[Rollout]) -> Connection {
    std::fs::write(folder.join("config.toml"), CONFIG).unwrap();
    let database = Connection::open(folder.join("rollouts.sqlite")).unwrap();
    database.execute_batch(&format!("PRAGMA synchronous = OFF; {SCHEMA} BEGIN")).unwrap();
    for rollout in rollouts {
        let parts: Vec<&str> = rollout.id.split('/').collect();
        let (step, phase, id) = (parts[0], parts[1], parts[2]);
        let group = rollout.group.rsplit('/').next().unwrap();
        let Rollout { task_id, question, gold, answer, reward, missing, .. } = rollout;
        database
            .execute(
                "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                params![step, phase, id, task_id, group, question, gold, answer, reward, missing],
            )
            .unwrap();
        for (number, c) in rollout.calls.iter().enumerate() {
            let ids = |ids: &[u32]| ids.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
            let logprobs: Vec<u8> = c.logprobs.iter().flat_map(|p| p.to_le_bytes()).collect();
            database
                .execute(
                    "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    params![
                        step,
                        phase,
                        id,
                        number as i64,
                        c.role,
                        ids(&c.prompt_ids),
                        ids(&c.response_ids),
                        logprobs,
                        c.prompt,
                        c.text,
                        c.finish,
                        c.policy_version as i64,
                        c.credit,
                        c.advantage
                    ],
                )
                .unwrap();
        }
        for signal in &rollout.signals {
            database
                .execute(
                    "INSERT INTO signals VALUES (?, ?, ?, ?, ?, ?)",
                    params![step, phase, id, signal.call as i64, signal.kind, signal.detail],
                )
                .unwrap();
        }
    }
    database.execute_batch("COMMIT").unwrap();
    database
}

fn call() -> impl Strategy<Value = Call> {
    let tokens = prop::collection::vec((any::<u32>(), -30.0_f32..0.0), 0..6);
    let prompt = prop::collection::vec(any::<u32>(), 0..6);
    let scalars = (any::<Option<f32>>(), -1e6..1e6_f64, any::<bool>(), 0_u64..1 << 40);
    (tokens, prompt, "\\PC{0,12}", any::<Option<String>>(), scalars).prop_map(
        |(tokens, prompt_ids, text, prompt, (credit, advantage, trained, policy_version))| Call {
            role: "solver".to_owned(),
            response_ids: tokens.iter().map(|token| token.0).collect(),
            logprobs: tokens.iter().map(|token| token.1).collect(),
            prompt_ids,
            prompt,
            text,
            finish: "stop".to_owned(),
            policy_version,
            constrained: false,
            temperature: Some(1.0),
            credit: credit.map(f64::from).filter(|c| c.is_finite() && trained),
            advantage: trained.then_some(advantage),
        },
    )
}

fn rollout() -> impl Strategy<Value = Rollout> {
    let text = any::<String>();
    let calls = prop::collection::vec(call(), 0..4);
    (calls, text, any::<Option<String>>(), any::<bool>(), -1e9..1e9_f64).prop_map(
        |(calls, text, answer, rewarded, reward)| Rollout {
            step: Some(3),
            phase: "train".to_owned(),
            group: "3/train/7".to_owned(),
            task_id: text.clone(),
            agent: Some("calc".to_owned()),
            question: text.clone(),
            gold: Some(text.clone()),
            answer,
            reward: rewarded.then_some(reward),
            missing: (!rewarded).then(|| text.clone()),
            signals: vec![Signal { call: 1, kind: "tool_error".to_owned(), detail: text }],
            calls,
            ..Rollout::default()
        },
    )
}

/// Exports a store in both formats and reads the files.
fn exported(folder: &Path, reader: Option<Reader>) -> [Vec<Map<String, Value>>; 2] {
    let store = RunStore::open(folder).unwrap();
    let (lines, table) = (folder.join("out.jsonl"), folder.join("out.parquet"));
    let file = std::fs::File::create(&lines).unwrap();
    let writers: [Box<dyn RowWriter>; 2] = [
        Box::new(JsonLines::new(&lines, file, columns_of(reader))),
        Box::new(ParquetFile::create(&table, columns_of(reader)).unwrap()),
    ];
    let counts = writers.map(|mut writer| {
        store.each(&Filter::default(), &mut |rollout| writer.write(&rollout)).unwrap();
        writer.finish().unwrap()
    });
    let text = std::fs::read_to_string(&lines).unwrap();
    let from_lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let from_table: Vec<_> = parquet::rows(&table).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(counts, [from_lines.len() as u64, from_table.len() as u64]);
    [from_lines, from_table]
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Compares a row with its call.
fn check(row: &Map<String, Value>, rollout: &Rollout, number: usize) {
    let call = &rollout.calls[number];
    let text = |name: &str| row[name].as_str();
    assert_eq!(text("rollout"), Some(rollout.id.as_str()));
    assert_eq!(row["call"], number);
    assert_eq!(text("task_id"), Some(rollout.task_id.as_str()));
    assert_eq!(text("answer"), rollout.answer.as_deref());
    assert_eq!(text("missing"), rollout.missing.as_deref());
    assert_eq!(text("gts"), rollout.gold.as_deref());
    assert_eq!(text("input"), call.prompt.as_deref());
    assert_eq!(text("output"), Some(call.text.as_str()));
    assert_eq!(text("uid"), Some("3/train/7"));
    assert_eq!(row["policy_version"].as_u64(), Some(call.policy_version));
    assert_eq!(row["score"].as_f64(), rollout.reward);
    assert_eq!(row["reward_score"].as_f64(), rollout.reward);
    assert_eq!(row["credit"].as_f64(), call.credit);
    assert_eq!(row["advantage"].as_f64(), call.advantage);
    let ids = |ids: &[u32]| ids.iter().map(|&id| f64::from(id)).collect::<Vec<_>>();
    assert_eq!(numbers(&row["prompt_ids"]), ids(&call.prompt_ids));
    assert_eq!(numbers(&row["response_ids"]), ids(&call.response_ids));
    let whole = [call.prompt_ids.as_slice(), &call.response_ids].concat();
    assert_eq!(numbers(&row["token_ids"]), ids(&whole));
    // Bit for bit, because importance ratios are computed from log-probabilities.
    let as_f32 = |value: &Value| numbers(value).iter().map(|&n| n as f32).collect::<Vec<_>>();
    assert_eq!(as_f32(&row["response_logprobs"]), call.logprobs);
    let padded = [vec![0.0; call.prompt_ids.len()], call.logprobs.clone()].concat();
    assert_eq!(as_f32(&row["logprobs"]), padded);
    let own = row["mask"].as_array().unwrap().iter().filter(|m| **m == Value::Bool(true)).count();
    assert_eq!(own, call.response_ids.len());
    assert_eq!(row["advantages"].is_null(), call.advantage.is_none());
    let signals: Vec<Value> = serde_json::from_str(text("signals").unwrap()).unwrap();
    let last = rollout.calls.len() - 1;
    assert_eq!(signals.len(), usize::from(number == last.min(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn exports_round_trip_the_store(mut rollouts in prop::collection::vec(rollout(), 1..5)) {
        let folder = tempfile::tempdir().unwrap();
        for (number, rollout) in rollouts.iter_mut().enumerate() {
            rollout.id = format!("3/train/{number}");
        }
        store(folder.path(), &rollouts);
        let read = RunStore::open(folder.path()).unwrap();
        for rollout in &rollouts {
            let found = read.rollout(&rollout.id).unwrap();
            prop_assert_eq!(found.as_ref(), Some(rollout));
        }
        for rows in exported(folder.path(), None) {
            let calls = rollouts.iter().flat_map(|r| (0..r.calls.len()).map(move |n| (r, n)));
            let mut rows = rows.iter();
            for (rollout, number) in calls {
                check(rows.next().unwrap(), rollout, number);
            }
            prop_assert!(rows.next().is_none());
        }
    }
}

/// A rollout with one call and the given address and reward.
fn plain(id: &str, reward: Option<f64>) -> Rollout {
    let (place, _) = id.rsplit_once('/').unwrap();
    Rollout {
        id: id.to_owned(),
        group: format!("{place}/0"),
        reward,
        missing: reward.is_none().then(|| "late".to_owned()),
        calls: vec![Call {
            prompt_ids: vec![1, 2],
            response_ids: vec![3],
            logprobs: vec![-0.5],
            ..Call::default()
        }],
        ..Rollout::default()
    }
}

#[test]
fn a_file_for_one_reader_has_only_its_fields() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), &[plain("1/train/0", Some(1.0))]);
    let names = |rows: &[Map<String, Value>]| rows[0].keys().cloned().collect::<Vec<_>>();
    let prime = ["token_ids", "mask", "logprobs", "temperatures", "env_name", "advantages"];
    for rows in exported(folder.path(), Some(Reader::PrimeRl)) {
        assert_eq!(names(&rows), prime);
        assert_eq!(numbers(&rows[0]["temperatures"]), [1.0, 1.0, 1.0]);
        assert_eq!(rows[0]["env_name"], "calc");
    }
    let verl = [
        "uid",
        "step",
        "input",
        "output",
        "gts",
        "score",
        "prompt_ids",
        "response_ids",
        "response_mask",
        "response_logprobs",
        "reward_score",
    ];
    for rows in exported(folder.path(), Some(Reader::Verl)) {
        assert_eq!(names(&rows), verl);
        assert_eq!(numbers(&rows[0]["response_mask"]), [1.0]);
    }
}

#[test]
fn filters_and_places() {
    let folder = tempfile::tempdir().unwrap();
    let all = [
        plain("0/greedy/0", Some(0.0)),
        plain("0/sampled/0", Some(0.25)),
        plain("1/train/0", Some(1.0)),
        plain("1/train/1", None),
        plain("2/train/0", Some(0.5)),
        plain("10/train/0", Some(0.0)),
    ];
    store(folder.path(), &all);
    let store = RunStore::open(folder.path()).unwrap();
    let places = store.places().unwrap();
    let places: Vec<String> = places.iter().map(|p| format!("{}/{}", p.step, p.phase)).collect();
    assert_eq!(places, ["0/greedy", "0/sampled", "1/train", "2/train", "10/train"]);
    let ids = |filter: Filter| -> Vec<String> {
        let lines = store.list(&filter).unwrap();
        assert!(lines.iter().all(|line| line.calls == 1 && line.signals == 0));
        lines.into_iter().map(|line| line.id).collect()
    };
    let any = Filter::default;
    assert_eq!(ids(Filter { step: Some(1), ..any() }), ["1/train/0", "1/train/1"]);
    assert_eq!(ids(Filter { phase: Some("greedy".to_owned()), ..any() }), ["0/greedy/0"]);
    assert_eq!(ids(Filter { at_least: Some(0.5), ..any() }), ["1/train/0", "2/train/0"]);
    assert_eq!(ids(Filter { at_most: Some(0.0), ..any() }), ["0/greedy/0", "10/train/0"]);
    assert_eq!(ids(Filter { missing: Some(true), ..any() }), ["1/train/1"]);
    assert_eq!(ids(Filter { offset: 4, limit: Some(1), ..any() }), ["2/train/0"]);
    assert_eq!(store.count(&Filter { missing: Some(false), ..any() }).unwrap(), 5);
    for nothing in ["", "1/train", "1/train/9", "x/train/0", "-1/train/0", "1/'; --/0"] {
        assert_eq!(store.rollout(nothing).unwrap(), None, "{nothing}");
    }
}

#[test]
fn constrained_calls_are_read_where_the_store_has_the_column() {
    let folder = tempfile::tempdir().unwrap();
    let database = store(folder.path(), &[plain("1/train/0", None)]);
    let constrained = || {
        let store = RunStore::open(folder.path()).unwrap();
        store.rollout("1/train/0").unwrap().unwrap().calls[0].constrained
    };
    assert!(!constrained());
    database.execute_batch("ALTER TABLE calls ADD COLUMN constrained INTEGER").unwrap();
    assert!(!constrained());
    database.execute("UPDATE calls SET constrained = 1", []).unwrap();
    assert!(constrained());
}

#[test]
fn bad_stores_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| RunStore::open(path).err().unwrap();
    assert!(matches!(open(&folder.path().join("nowhere")), ExportError::NoFolder(_)));
    assert!(matches!(open(folder.path()), ExportError::NoStore(_)));
    let file = folder.path().join("rollouts.sqlite");
    std::fs::write(&file, "this is no database, and it is longer than a header").unwrap();
    assert!(matches!(open(folder.path()), ExportError::NotAStore(_)));
    std::fs::write(&file, "").unwrap();
    assert!(matches!(open(folder.path()), ExportError::NotAStore(_)));

    // An incomplete number, and a missing log-probability.
    std::fs::remove_file(&file).unwrap();
    let database = store(folder.path(), &[plain("1/train/0", None), plain("1/train/1", None)]);
    database.execute("UPDATE calls SET prompt_ids = x'010203' WHERE rollout = 0", []).unwrap();
    database.execute("UPDATE calls SET logprobs = x'' WHERE rollout = 1", []).unwrap();
    let damaged = RunStore::open(folder.path()).unwrap();
    let error = damaged.rollout("1/train/0").unwrap_err().to_string();
    assert!(error.contains("1/train/0, call 0: prompt_ids ends in the middle"), "{error}");
    let error = damaged.rollout("1/train/1").unwrap_err().to_string();
    assert!(error.contains("1 response tokens and 0 log-probabilities"), "{error}");
    drop((database, damaged));

    // Overwrite pages of the file.
    let mut bytes = std::fs::read(&file).unwrap();
    let length = bytes.len();
    bytes[4096..length].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let error = RunStore::open(folder.path())
        .and_then(|store| store.list(&Filter::default()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("rollouts.sqlite is damaged"), "{error}");
}
