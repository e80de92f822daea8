//! The main workflow in two commands: run an experiment, report on it.

use std::fs;
use std::process::Command;

use crate::common::{Trained, assert_contains, checkout, leyden, lines, quickstart, succeeds};

#[test]
fn a_run_and_its_report() {
    let runs = tempfile::tempdir().unwrap();
    let folder = runs.path().join("quickstart");
    let (stdout, stderr) = succeeds(&mut quickstart(&folder, &[]));
    assert_contains(&stdout, &["finished: ", "quickstart"]);
    assert_contains(&stderr, &["after step 0: sampled reward", "after step 4: greedy reward"]);
    let trained = Trained::of(&folder);
    let steps = lines(&trained.metrics, "step");
    assert_eq!(steps.len(), 4);
    assert!(
        steps.iter().any(|step| step["grad_norm"].as_f64() > Some(0.0)),
        "no step had a gradient"
    );
    assert_eq!(lines(&trained.metrics, "eval").len(), 3 * 2);
    for file in ["config.toml", "provenance.json", "rollouts.sqlite", "final/tokenizer.json"] {
        assert!(folder.join(file).exists(), "{file} is missing");
    }

    let (stdout, _) = succeeds(leyden(&["report"]).arg(&folder));
    assert_contains(&stdout, &["mini-calc", "sampled", "report/index.html"]);
    for file in ["reward.svg", "reward.png", "table.csv", "table.md", "curves.csv"] {
        let path = folder.join("report").join(file);
        assert!(fs::metadata(&path).is_ok_and(|m| m.len() > 0), "{}", path.display());
    }
    let page = fs::read_to_string(folder.join("report/index.html")).unwrap();
    assert!(!page.contains("src=\"http") && page.contains("<svg"), "the page is self-contained");

    let (stdout, _) = succeeds(&mut quickstart(&folder, &[]));
    assert_contains(&stdout, &["finished already"]);
    Trained::of(&folder).assert_same(&trained);
}

/// The revision is that of the program's sources, whatever folder it runs in.
#[test]
fn provenance_is_of_the_program() {
    let elsewhere = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let author = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let mut git = Command::new("git");
        succeeds(git.current_dir(elsewhere.path()).args(author).args(arguments)).0
    };
    git(&["init", "--quiet"]);
    git(&["commit", "--quiet", "--allow-empty", "-m", "another project"]);
    let other = git(&["rev-parse", "HEAD"]);
    let file = checkout().join("benchmarks/experiments/mini/calc.toml");
    let mut run = leyden(&["run", "--set", "train.steps=1", "--set", "eval.tasks=2"]);
    run.current_dir(elsewhere.path()).arg(file).args(["--folder", "run"]);
    succeeds(&mut run);
    let text = fs::read_to_string(elsewhere.path().join("run/provenance.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_ne!(provenance["git_revision"], other.trim());
    // The tests are built with the program.
    let mut head = Command::new("git");
    let head = head.current_dir(checkout()).args(["rev-parse", "--verify", "HEAD"]).output();
    if head.is_ok_and(|output| output.status.success()) {
        let revision = provenance["git_revision"].as_str().unwrap_or_default();
        assert_eq!(revision.len(), 40, "{provenance}");
    }
}

#[test]
fn a_resolved_experiment_resolves_to_itself() {
    let file = "benchmarks/experiments/mini/calc.toml";
    let (resolved, _) = succeeds(&mut leyden(&["run", file, "--seed", "3", "--dry-run"]));
    assert_contains(&resolved, &["seed = 3", "[algorithm.loss]", "micro_batch_tokens"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolved.toml");
    fs::write(&path, &resolved).unwrap();
    let (again, _) = succeeds(leyden(&["run", "--dry-run"]).arg(&path));
    assert_eq!(again, resolved);
}

#[test]
fn every_experiment_of_the_checkout_resolves() {
    let mut folders = vec![checkout().join("benchmarks/experiments")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Ablations are sweeps over experiments; their own test expands them.
            if path.is_dir() && !path.ends_with("ablations") {
                folders.push(path);
            } else if path.is_file() && path.extension().is_some_and(|e| e == "toml") {
                succeeds(leyden(&["run", "--dry-run"]).arg(path));
                files += 1;
            }
        }
    }
    assert!(files > 0);
}
