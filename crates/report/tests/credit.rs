//! Reports of measured credit rules with known results.

use std::fs;

use leyden_core::SeedTree;
use leyden_report::credit::{Call, CreditReport, Measurement, Rule};
use serde_json::{Value, json};

/// Two rollouts of each of twelve tasks, with two calls each. The truth of first calls is ±0.5, that
/// of second calls ±0.25.
fn calls() -> Vec<Call> {
    let call = |number: usize| {
        let (task, position) = (number / 4, number % 2);
        let rollout = number / 2;
        let sign = if (rollout + position).is_multiple_of(2) { 1.0 } else { -1.0 };
        Call {
            task,
            task_id: format!("task, {task}"),
            rollout,
            position,
            calls: 2,
            role: "solve".to_owned(),
            label: if task % 2 == 0 { "2-4" } else { "10-12" }.to_owned(),
            reward: 1.0,
            truth: sign * [0.5, 0.25][position],
            noise: 0.0,
        }
    };
    (0..48).map(call).collect()
}

fn measurement() -> Measurement {
    let calls = calls();
    let rule = |name: &str, credit: Result<Vec<f64>, String>| Rule {
        name: name.to_owned(),
        critic: None,
        credit,
    };
    let of = |credit: &dyn Fn(&Call) -> f64| Ok(calls.iter().map(credit).collect());
    let rules = vec![
        rule("learned_value", Err("no critic".to_owned())),
        rule("first calls only", of(&|call| if call.position == 0 { call.truth } else { 0.0 })),
        rule("constant", of(&|_| 0.5)),
        rule("opposite", of(&|call| -call.truth)),
        Rule {
            critic: Some("fitted".to_owned()),
            ..rule("twice | the truth", of(&|call| 2.0 * call.truth))
        },
    ];
    Measurement {
        title: "Credit of x".to_owned(),
        about: "a policy".to_owned(),
        label: "horizon".to_owned(),
        calls,
        rules,
        settings: json!({ "tasks": 12 }),
        counts: json!({ "completions": 7 }),
        provenance: json!({ "leyden": "0" }),
    }
}

#[test]
fn rules_are_sorted_by_their_correlation() {
    let measurement = measurement();
    let report = CreditReport::of(&measurement, SeedTree::new(1)).unwrap();
    let names: Vec<&str> = report.rules.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(
        names,
        ["twice | the truth", "first calls only", "opposite", "constant", "learned_value"]
    );
    let best = report.rules[0].agreement.as_ref().unwrap();
    assert_eq!((best.scale, best.overall.same_sign), (Some(0.5), Some(1.0)));
    let opposite = report.rules[2].agreement.as_ref().unwrap();
    assert_eq!((opposite.scale, opposite.overall.same_sign), (Some(-1.0), Some(0.0)));
}

#[test]
fn the_tables_show_every_rule_and_why_one_is_missing() {
    let measurement = measurement();
    let text = CreditReport::of(&measurement, SeedTree::new(1)).unwrap().markdown();
    for part in [
        "| 1 | twice \\| the truth (critic fitted) | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] \
         | +0.11 [+0.11, +0.11] | 0.5 | 0.5 | 0 |",
        "| 5 | learned_value | no critic | – |",
        "| 4 | constant | – | – | – | – | 0 |",
        "| 3 | opposite | -1.00 [-1.00, -1.00] |",
        "| difference from first calls only |",
        "48 calls of 12 tasks; 100 % of the estimated truth's variance is not noise; 48 calls",
        "Correlation without noise by call:\n\n| rule | 1 | 2 |",
        "| first calls only | 1.00 | – |",
        "Scaled variance by horizon:\n\n| rule | 2-4 | 10-12 |",
    ] {
        assert!(text.contains(part), "{part}\n\n{text}");
    }
}

#[test]
fn the_files_are_complete_and_repeat() {
    let measurement = measurement();
    let report = CreditReport::of(&measurement, SeedTree::new(1)).unwrap();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    report.write(&one.path().join("new")).unwrap();
    report.write(two.path()).unwrap();
    for name in ["credit.md", "credit.csv", "credit.json", "credit.svg", "credit.png"] {
        let bytes = fs::read(one.path().join("new").join(name)).unwrap();
        assert_eq!(bytes, fs::read(two.path().join(name)).unwrap(), "{name}");
    }
    let read = |name: &str| fs::read_to_string(two.path().join(name)).unwrap();
    let csv = read("credit.csv");
    // The rule without credit has no lines.
    assert_eq!(csv.lines().count(), 1 + 4 * 48);
    assert!(csv.contains("\nconstant,0,\"task, 0\",0,0,2,solve,2-4,1,0.5,0,0.5\n"), "{csv}");
    let json: Value = serde_json::from_str(&read("credit.json")).unwrap();
    assert_eq!(json["rules"][0]["agreement"]["overall"]["calls"], 48);
    assert_eq!(json["rules"][0]["agreement"]["by_position"]["1"]["calls"], 24);
    assert_eq!(json["baseline"], "first calls only");
    assert!(json["rules"][2]["difference_from_baseline"]["difference"].as_f64().unwrap() < -1.8);
    assert_eq!(json["rules"][4]["not_measured"], "no critic");
    assert_eq!(
        (&json["settings"]["tasks"], &json["counts"]["completions"]),
        (&json!(12), &json!(7))
    );
    let svg = read("credit.svg");
    for part in ["Correlation of credit", "Correlation by call", "Correlation by horizon"] {
        assert!(svg.contains(part), "{part}");
    }
    assert!(read("credit.md").ends_with("![charts](credit.svg)\n"));
}

#[test]
fn a_measurement_without_calls_is_rejected() {
    let empty = Measurement {
        calls: Vec::new(),
        rules: vec![Rule { name: "x".to_owned(), critic: None, credit: Ok(Vec::new()) }],
        ..measurement()
    };
    let error = CreditReport::of(&empty, SeedTree::new(1)).unwrap_err().to_string();
    assert!(error.starts_with("no call has a true advantage"), "{error}");
}
