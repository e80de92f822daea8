//! Comparisons of hand-made runs with known results.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use leyden_core::record::{EvalRecord, RECORD_SCHEMA, Record};
use leyden_report::compare::{Comparison, compare};
use leyden_report::{Run, load};
use rusqlite::Connection;
use tempfile::TempDir;

type Rewards<'a> = &'a [(&'a str, Option<f64>)];

fn eval(step: u64, mode: &str, rewards: Rewards<'_>) -> EvalRecord {
    let known: Vec<f64> = rewards.iter().filter_map(|(_, reward)| *reward).collect();
    EvalRecord {
        schema: RECORD_SCHEMA,
        step,
        mode: mode.to_owned(),
        tasks: rewards.len(),
        without_reward: rewards.len() - known.len(),
        reward_mean: known.iter().sum::<f64>() / known.len().max(1) as f64,
        rewards: rewards.iter().map(|(id, reward)| ((*id).to_owned(), *reward)).collect(),
        ..EvalRecord::default()
    }
}

fn run(dir: &Path, name: &str, evals: Vec<EvalRecord>) -> Run {
    let folder = dir.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), format!("name = '{name}'\nseed = 1\n")).unwrap();
    let line = |eval| serde_json::to_string(&Record::Eval(Box::new(eval))).unwrap() + "\n";
    fs::write(folder.join("metrics.jsonl"), evals.into_iter().map(line).collect::<String>())
        .unwrap();
    load(&folder).unwrap()
}

/// A store of rollouts: step 10, sampled, one rollout per item with its question and labels.
fn store(run: &Run, items: &[(String, &str, Option<&str>)]) {
    let database = Connection::open(run.folder.join("rollouts.sqlite")).unwrap();
    let columns = "step INTEGER, phase TEXT, id INTEGER, task_id TEXT, grp INTEGER, \
        question TEXT, gold TEXT, answer TEXT, reward REAL, missing TEXT";
    let labelled = items.iter().any(|(_, _, labels)| labels.is_some());
    let more = if labelled { ", labels TEXT" } else { "" };
    database.execute_batch(&format!("CREATE TABLE rollouts({columns}{more})")).unwrap();
    for (id, (task, question, labels)) in items.iter().enumerate() {
        database
            .execute(
                "INSERT INTO rollouts(step, phase, id, task_id, question, gold) \
                 VALUES (10, 'sampled', ?1, ?2, ?3, '7')",
                rusqlite::params![id as i64, task, question],
            )
            .unwrap();
        if let Some(labels) = labels {
            let update = "UPDATE rollouts SET labels = ?1 WHERE id = ?2";
            database.execute(update, rusqlite::params![labels, id as i64]).unwrap();
        }
    }
}

/// Forty items; the second run gains twelve and loses two.
fn forty() -> (Vec<String>, Vec<f64>, Vec<f64>) {
    let ids = (0..40).map(|k| format!("t{k:02}")).collect();
    let before = (0..40).map(|k| f64::from(u8::from(k >= 20))).collect();
    let after = (0..40).map(|k| f64::from(u8::from(!(12..22).contains(&k)))).collect();
    (ids, before, after)
}

fn rewards<'a>(ids: &'a [String], values: &[f64]) -> Vec<(&'a str, Option<f64>)> {
    ids.iter().map(String::as_str).zip(values.iter().map(|value| Some(*value))).collect()
}

fn compared(a: &Run, b: &Run) -> Comparison {
    compare(a, b, None).unwrap()
}

#[test]
fn items_are_won_lost_and_tied() {
    let dir = TempDir::new().unwrap();
    let (ids, before, after) = forty();
    let first =
        [eval(0, "sampled", &rewards(&ids, &after)), eval(10, "sampled", &rewards(&ids, &before))];
    let a = run(dir.path(), "a", first.to_vec());
    // In another order: items are matched by id.
    let mut reversed = rewards(&ids, &after);
    reversed.reverse();
    let b = run(dir.path(), "b", vec![eval(10, "sampled", &reversed)]);
    let found = compared(&a, &b);
    let all = &found.slices[0];
    assert_eq!((all.a, all.b, all.counts), (0.5, 0.75, Some((12, 2, 26))));
    assert!((all.difference.mean - 0.25).abs() < 1e-12);
    assert_eq!(
        (found.won.len(), found.lost.as_slice()),
        (12, &["t21".to_owned(), "t20".to_owned()][..])
    );
    // Binomial: 2 (C(14,0) + C(14,1) + C(14,2)) / 2^14.
    let p = 2.0 * (1.0 + 14.0 + 91.0) / 16384.0;
    assert!((found.test.unwrap().p_value - p).abs() < 1e-12);
    let (low, high) = all.difference.interval.unwrap();
    assert!(low > 0.0 && low < 0.25 && high > 0.25 && high < 0.5);
    assert!(found.verdict().contains("second run scores higher"), "{}", found.verdict());
    assert!(compared(&b, &a).verdict().contains("second run scores lower"));
    let same = compared(&a, &a);
    assert!(same.verdict().contains("not equality"), "{}", same.verdict());
    let words = found.markdown();
    assert!(words.contains("| all | 40 | 0.500 | 0.750 | +0.250 ["), "{words}");
    assert!(words.contains("| 12 | 2 | 26 |") && words.contains("Items lost: t21, t20."));
    assert!(words.contains("by id only") && words.contains("variation over seeds"));
}

#[test]
fn differing_items_are_rejected_by_name() {
    let dir = TempDir::new().unwrap();
    let one = |k: usize| (k, Some(1.0));
    let of = |name: &str, ids: &[usize]| {
        let ids: Vec<String> = ids.iter().map(|k| format!("t{k}")).collect();
        let values: Vec<(&str, Option<f64>)> =
            ids.iter().enumerate().map(|(k, id)| (id.as_str(), one(k).1)).collect();
        run(dir.path(), name, vec![eval(10, "sampled", &values)])
    };
    let (a, b) = (of("a", &[1, 2, 3]), of("b", &[2, 3, 4, 5]));
    let error = compare(&a, &b, None).unwrap_err().to_string();
    assert!(error.contains("1 only in") && error.contains("(t1)"), "{error}");
    assert!(error.contains("2 only in") && error.contains("(t4, t5)"), "{error}");
    let many: Vec<usize> = (0..30).collect();
    let error = compare(&of("c", &[]), &of("d", &many), None).unwrap_err().to_string();
    assert!(error.contains("30 only in") && error.contains(", …"), "{error}");
}

#[test]
fn an_id_with_another_question_is_another_item() {
    let dir = TempDir::new().unwrap();
    let values = [("x", Some(1.0)), ("y", Some(0.0))];
    let of = |name: &str, question: &str| {
        let made = run(dir.path(), name, vec![eval(10, "sampled", &values)]);
        store(&made, &[("x".to_owned(), "2 + 5?", None), ("y".to_owned(), question, None)]);
        made
    };
    let (a, b, c) = (of("a", "3 + 4?"), of("b", "3 + 4?"), of("c", "4 + 3?"));
    assert!(compared(&a, &b).questions_known);
    let error = compare(&a, &c, None).unwrap_err().to_string();
    assert!(error.contains("the first y, the question"), "{error}");
}

#[test]
fn a_missing_reward_is_excluded_and_not_zero() {
    let dir = TempDir::new().unwrap();
    let a = [("x", Some(1.0)), ("y", None), ("z", Some(0.0))];
    let b = [("x", Some(1.0)), ("y", Some(1.0)), ("z", None)];
    let a = run(dir.path(), "a", vec![eval(10, "greedy", &a)]);
    let b = run(dir.path(), "b", vec![eval(10, "greedy", &b)]);
    let found = compared(&a, &b);
    assert_eq!((found.slices[0].counts, found.slices[0].a), (Some((0, 0, 1)), 1.0));
    assert_eq!(found.left_out, ["y", "z"]);
    // One item is too few for an interval.
    assert!(found.slices[0].difference.interval.is_none());
    assert!(found.verdict().contains("no verdict"), "{}", found.verdict());
    let nothing = [("x", None), ("y", None), ("z", None)];
    let nothing = run(dir.path(), "n", vec![eval(10, "greedy", &nothing)]);
    let error = compare(&a, &nothing, None).unwrap_err().to_string();
    assert!(error.contains("none of the 3 test items"), "{error}");
}

#[test]
fn labels_are_compared_per_item_where_available() {
    let dir = TempDir::new().unwrap();
    let (ids, before, after) = forty();
    let labels = |k: usize| if k < 20 { r#"{"depth":"1"}"# } else { r#"{"depth":"2"}"# };
    let of = |name: &str, values: &[f64]| {
        let made = run(dir.path(), name, vec![eval(10, "sampled", &rewards(&ids, values))]);
        let items: Vec<_> =
            ids.iter().enumerate().map(|(k, id)| (id.clone(), "why?", Some(labels(k)))).collect();
        store(&made, &items);
        made
    };
    let found = compared(&of("a", &before), &of("b", &after));
    let depth = |value: &str| {
        found.slices.iter().find(|slice| slice.name == format!("depth = {value}")).unwrap()
    };
    assert_eq!(depth("1").counts, Some((12, 0, 8)));
    assert_eq!(depth("2").counts, Some((0, 2, 18)));
    assert!((depth("1").difference.mean - 0.6).abs() < 1e-12);
    assert!(depth("1").difference.interval.unwrap().0 > 0.3);
}

#[test]
fn labels_with_means_only_have_no_interval() {
    let dir = TempDir::new().unwrap();
    let (ids, before, after) = forty();
    let of = |name: &str, values: &[f64], mean: f64, n: usize| {
        let mut eval = eval(10, "sampled", &rewards(&ids, values));
        let depths = [("1", (mean, 20)), ("2", (0.5, n))];
        let depths = depths.map(|(value, figures)| (value.to_owned(), figures));
        eval.by_label.insert("depth".to_owned(), BTreeMap::from(depths));
        run(dir.path(), name, vec![eval])
    };
    // The second value has different numbers of items on the two sides.
    let found = compared(&of("a", &before, 0.0, 20), &of("b", &after, 0.6, 19));
    let names: Vec<&str> = found.slices.iter().map(|slice| slice.name.as_str()).collect();
    assert_eq!(names, ["all", "depth = 1"]);
    let depth = &found.slices[1];
    assert_eq!((depth.difference.mean, depth.difference.interval, depth.counts), (0.6, None, None));
}

#[test]
fn missing_evaluations_are_named() {
    let dir = TempDir::new().unwrap();
    let values = [("x", Some(1.0))];
    let a = run(dir.path(), "a", vec![eval(10, "sampled", &values)]);
    let b = run(dir.path(), "b", vec![eval(10, "greedy", &values)]);
    let error = compare(&a, &b, None).unwrap_err().to_string();
    assert!(error.contains("first has sampled, the second greedy"), "{error}");
    let error = compare(&a, &b, Some("greedy")).unwrap_err().to_string();
    assert!(error.contains("no greedy evaluation") && error.contains("only sampled"), "{error}");
}
