//! `leyden credit` on a checkpoint and on an experiment's starting model.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{assert_contains, leyden, quickstart, refused, succeeds};

fn credit(policy: &str, out: &Path, more: &[&str]) -> Command {
    let mut command = leyden(&["credit", policy, "--tasks", "6", "--completions", "4"]);
    command.args(["--rules", "identical,last_call,monte_carlo,learned_value"]);
    command.arg("--out").arg(out).args(more);
    command
}

#[test]
fn credit_rules_are_measured_on_a_checkpoint_and_refusals_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    succeeds(&mut quickstart(&run, &[]));
    let policy = format!("{}@2", run.display());
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (stdout, _) = succeeds(&mut credit(&policy, &one, &["--group", "4"]));
    assert_contains(
        &stdout,
        &[
            "| rule | correlation |",
            "the checkpoint of step 2",
            "6 tasks with 4 rollouts each",
            "| learned_value | no critic |",
            "written: ",
        ],
    );
    succeeds(&mut credit(&policy, &two, &["--group", "4"]));
    for name in ["credit.md", "credit.csv", "credit.json", "credit.svg"] {
        assert!(fs::read(one.join(name)).unwrap() == fs::read(two.join(name)).unwrap(), "{name}");
    }
    let json: Value =
        serde_json::from_str(&fs::read_to_string(one.join("credit.json")).unwrap()).unwrap();
    assert_eq!(json["counts"]["rollouts"], 24);
    assert_eq!(json["provenance"]["checkpoint"]["step"], 2);
    assert!(one.join("rollouts.sqlite").is_file());

    let three = dir.path().join("three");
    let sentence = refused(&mut credit(&policy, &three, &["--group", "1"]));
    assert_contains(&sentence, &["2 or more rollouts"]);
    let sentence = refused(&mut credit(&format!("{}@3", run.display()), &three, &[]));
    assert_contains(&sentence, &["no checkpoint of step 3", "kept are 2, 4"]);
    assert!(!three.exists());
    assert_contains(&refused(&mut credit(&policy, &one, &[])), &["this folder is not empty"]);
}

#[test]
fn the_starting_model_of_an_experiment_is_a_policy_too() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let file = "benchmarks/experiments/mini/calc.toml";
    let more = ["--states", "10", "--critic-steps", "1", "--set", "rollout.max_tokens=24"];
    let (stdout, _) = succeeds(&mut credit(file, &out, &more));
    assert_contains(&stdout, &["the model tiny", "learned_value (critic fitted)"]);
    let csv = fs::read_to_string(out.join("credit.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 4 * 10, "{csv}");
}
