//! Sweeps from file to verdict: killed and resumed, with a failing cell, and rejected before
//! anything runs.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    SHORT, Trained, assert_contains, checkout, leyden, output_text, quickstart, refused, succeeds,
};

/// A sweep of the shortened quickstart.
fn sweep_file(dir: &Path, rest: &str) -> PathBuf {
    let base = checkout().join("benchmarks/experiments/mini/calc.toml");
    let path = dir.join("short.toml");
    let text = format!("base = {base:?}\n{rest}\n[set]\n{}\n", SHORT.join("\n"));
    fs::write(&path, text).unwrap();
    path
}

fn sweep(file: &Path, folder: &Path, more: &[&str]) -> Command {
    let mut command = leyden(&["sweep"]);
    command.arg(file).arg("--folder").arg(folder).args(more);
    command
}

/// Two variants, the second with discounted credit.
const TWO: &str = "baseline = 'paper'\n[[variant]]\nname = 'paper'\n\
    [[variant]]\nname = 'discounted'\nset = { algorithm.credit = { name = 'discounted' } }";

/// A tuning of the learning rate with one seed: two cells for each variant.
const TUNE: &str = "[tune]\nseeds = [101]\n[tune.grid]\ntrain.learning_rate = [1e-3, 2e-3]";

/// Starts the command and kills its process group once `now` returns true, as a power failure
/// would.
fn kill_group_when(command: &mut Command, now: impl Fn() -> bool) {
    let silenced = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = silenced.spawn().unwrap();
    let started = Instant::now();
    while !now() {
        assert!(child.try_wait().unwrap().is_none(), "the command ended too early");
        assert!(started.elapsed() < Duration::from_secs(300), "the moment never came");
        std::thread::sleep(Duration::from_millis(1));
    }
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-9", "--", &group]).status().unwrap().success());
    child.wait().unwrap();
}

#[test]
fn a_killed_sweep_resumes_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (sweep_file(dir.path(), TWO), dir.path().join("sweep"));
    let again = || sweep(&file, &folder, &["--workers", "2"]);
    let metrics = folder.join("cells/discounted-seed1/metrics.jsonl");
    let begun =
        || fs::read_to_string(&metrics).is_ok_and(|text| text.contains("\"kind\":\"step\""));
    kill_group_when(&mut again(), begun);
    let (stdout, _) = succeeds(&mut again());
    assert_contains(&stdout, &["2 of 2 cells finished", "0 failed"]);
    let (stdout, _) = succeeds(&mut again());
    assert_contains(&stdout, &["2 of 2 cells finished (2 before)"]);
    // A cell equals the same run on its own.
    let alone = dir.path().join("alone");
    succeeds(&mut quickstart(&alone, &["name=\"short-paper\"", "seed=1"]));
    Trained::of(&folder.join("cells/paper-seed1")).assert_same(&Trained::of(&alone));

    let mut report = leyden(&["report", "--record", "--out"]);
    let recorded = dir.path().join("recorded");
    let (stdout, _) = succeeds(report.arg(&recorded).arg(&folder));
    assert_contains(
        &stdout,
        &["**paper**: the baseline", "no verdict: too few seeds (1 seed each", "recorded: "],
    );
    let mut again = leyden(&["report"]);
    let (of_record, _) = succeeds(again.arg(&recorded).arg("--out").arg(dir.path().join("r")));
    assert_eq!(of_record.split("report: ").next(), stdout.split("recorded: ").next());
    let kept = |name: &str| recorded.join(name).exists();
    assert!(kept("runs.tar.zst") && kept("sweep.toml") && !kept("cells") && !kept("index.html"));

    let cells = folder.join("cells");
    let mut compare = leyden(&["compare"]);
    let both = [cells.join("paper-seed1"), cells.join("discounted-seed1")];
    let (stdout, _) = succeeds(compare.args(both));
    assert_contains(&stdout, &["sampled evaluation after step 4", "| all | 8 |", "no verdict"]);

    // Another configuration in a cell's folder is rejected with the cell's name, and nothing is
    // lost.
    let config = cells.join("paper-seed1/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("samples = 8", "samples = 4")).unwrap();
    let sentence = refused(&mut sweep(&file, &folder, &[]));
    assert_contains(&sentence, &["cell paper-seed1", "it has `samples = 4`"]);
}

#[test]
fn a_sweep_tunes_every_variant_before_it_compares() {
    let dir = tempfile::tempdir().unwrap();
    let file = sweep_file(dir.path(), &format!("{TWO}\n{TUNE}"));
    let folder = dir.path().join("sweep");
    let (stdout, stderr) = succeeds(&mut sweep(&file, &folder, &["--dry-run"]));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{stdout}");
    assert_contains(lines[1], &["leyden run ", "train.learning_rate=0.002", "--seed 101"]);
    assert_eq!(lines[4], "# paper-seed1: waits for the tuning of `paper`");
    assert_contains(&stderr, &["4 tuning cells, then", "2 cells: 2 variants"]);

    let again = || sweep(&file, &folder, &["--workers", "2"]);
    let metrics = folder.join("cells/tune-discounted-point1-seed101/metrics.jsonl");
    let begun =
        || fs::read_to_string(&metrics).is_ok_and(|text| text.contains("\"kind\":\"step\""));
    kill_group_when(&mut again(), begun);
    assert!(!folder.join("cells/discounted-seed1").exists());
    let (stdout, _) = succeeds(&mut again());
    assert_contains(&stdout, &["6 of 6 cells finished", "0 failed"]);
    let choice = fs::read_to_string(folder.join("choices/paper.json")).unwrap();
    let choice: serde_json::Value = serde_json::from_str(&choice).unwrap();
    let chosen = choice["chosen"][0].as_str().unwrap();
    let (stdout, _) = succeeds(&mut sweep(&file, &folder, &["--dry-run"]));
    let cell = stdout.lines().find(|line| line.contains("/cells/paper-seed1")).unwrap();
    assert_contains(cell, &[chosen, "# finished"]);
    // A cell equals a run with the chosen value.
    let alone = dir.path().join("alone");
    succeeds(&mut quickstart(&alone, &["name=\"short-paper\"", "seed=1", chosen]));
    Trained::of(&folder.join("cells/paper-seed1")).assert_same(&Trained::of(&alone));

    let mut report = leyden(&["report"]);
    let (stdout, _) = succeeds(report.arg(&folder));
    let areas = choice["points"].as_array().unwrap();
    let row = |point: &serde_json::Value| {
        let (set, mean) = (point["overrides"][0].as_str()?, point["mean"].as_f64()?);
        Some(format!("{set} | 1 of 1 | 0 of 1 | {mean:.3} | – |"))
    };
    let rows: Vec<String> = areas.iter().filter_map(row).collect();
    assert_contains(&stdout, &["## Tuning", &rows[0], &rows[1], "The 4 tuning cells generated"]);
    // Another grid is another sweep.
    sweep_file(dir.path(), &format!("{TWO}\n{}", TUNE.replace("2e-3", "3e-3")));
    assert_contains(&refused(&mut again()), &["`paper` has another [tune]"]);
}

#[test]
fn a_cell_that_fails_is_named_and_the_others_finish() {
    let dir = tempfile::tempdir().unwrap();
    let rest = format!("{TWO}\n[[variant]]\nname = 'lost'\nset.data.train = ['nowhere.jsonl']");
    let (file, folder) = (sweep_file(dir.path(), &rest), dir.path().join("sweep"));
    for more in [&[][..], &["--retry"]] {
        let output = sweep(&file, &folder, more).output().unwrap();
        let (stdout, _) = output_text(&output);
        assert_eq!(output.status.code(), Some(1));
        assert_contains(
            &stdout,
            &["failed: lost-seed1: ", "nowhere.jsonl", "2 of 3 cells finished", "--retry"],
        );
    }
    let mut report = leyden(&["report"]);
    let (stdout, _) = succeeds(report.arg(&folder));
    assert_contains(
        &stdout,
        &["**lost**: no verdict: too few seeds", "| 1 of 1 | 1 of 1 |", "lost-seed1: failed: "],
    );
}

#[test]
fn errors_in_a_sweep_are_reported_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sweep");
    for (rest, more, words) in [
        ("[[variant]]\nname = 'x'\nset = { train.stepz = 1 }", &[][..], &["`x`", "stepz"][..]),
        ("[grid]\nalgorithm.credit.name = ['gigppo']", &[], &["name=gigppo", "gigppo"]),
        (
            "[[variant]]\nname = 'x'\nset = { algorithm.credit.name = 'gigpo' }",
            &[],
            &["`x`", "compare that again"],
        ),
        (
            &format!("{TWO}\n{}", TUNE.replace("learning_rate", "learning_rat")),
            &[],
            &["`paper`", "with train.learning_rat=0.001 of [tune.grid]", "learning_rat`"],
        ),
        (
            &format!("{TWO}\n{TUNE}"),
            &["--seeds", "100..102"],
            &["tune.seeds: seed 101 is also a seed of the sweep"],
        ),
        (TWO, &["--seeds", "1,2,1"], &["duplicate seed 1"]),
        (TWO, &["--workers", "0"], &["--workers"]),
        ("baseline = 'papre'\n[[variant]]\nname = 'paper'", &[], &["papre", "paper"]),
        (
            "[[variant]]\nname = 'a'\n[[variant]]\nname = 'b'",
            &[],
            &["`b`", "same experiment as `a`"],
        ),
    ] {
        let file = sweep_file(dir.path(), rest);
        assert_contains(&refused(&mut sweep(&file, &folder, more)), words);
        assert!(!folder.exists(), "{rest}");
    }
}

#[test]
fn every_ablation_expands_to_valid_experiments() {
    let folder = checkout().join("benchmarks/experiments/ablations");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // In a folder without `runs`, where the sweep may have begun already.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut command = leyden(&["sweep", "--dry-run"]);
        let (stdout, stderr) = succeeds(command.arg(&path).current_dir(&elsewhere));
        assert!(stdout.lines().count() >= 6, "{}: {stdout}", path.display());
        assert!(stdout.lines().all(|line| line.starts_with("leyden run runs/sweep-")), "{stdout}");
        assert_contains(&stderr, &[" cells: ", "baseline "]);
        seen += 1;
    }
    assert!(seen >= 8, "{seen} ablations");
}

#[test]
fn a_job_array_has_a_task_for_each_cell() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (sweep_file(dir.path(), TWO), dir.path().join("sweep"));
    let script = dir.path().join("job.sbatch");
    let slurm = ["--seeds", "1..3", "--workers", "2", "--slurm", script.to_str().unwrap()];
    let (stdout, _) = succeeds(&mut sweep(&file, &folder, &slurm));
    assert_contains(&stdout, &["6 cells", "sbatch"]);
    let text = fs::read_to_string(&script).unwrap();
    assert_contains(
        &text,
        &["#SBATCH --array=1-6%2", "--seeds 1..3", "--cell \"$SLURM_ARRAY_TASK_ID\""],
    );
    // A task as started by Slurm.
    let mut task = Command::new("bash");
    task.arg(&script).env("SLURM_ARRAY_TASK_ID", "2");
    let (stdout, _) = succeeds(&mut task);
    assert_contains(&stdout, &["1 of 1 cells finished"]);
    assert!(folder.join("cells/discounted-seed1/finished").exists());
    let sentence = refused(&mut sweep(&file, &folder, &["--cell", "7"]));
    assert_contains(&sentence, &["--cell 7", "6 cells"]);
}

#[test]
fn a_tuned_sweep_has_a_job_array_for_each_phase() {
    let dir = tempfile::tempdir().unwrap();
    let file = sweep_file(dir.path(), &format!("{TWO}\n{TUNE}"));
    let folder = dir.path().join("sweep");
    let script = dir.path().join("job.sbatch");
    let (stdout, _) = succeeds(&mut sweep(&file, &folder, &["--slurm", script.to_str().unwrap()]));
    assert_contains(
        &stdout,
        &[
            "phase 1, tuning: 4 cells",
            "job-tune.sbatch",
            "phase 2, comparison: 2 cells",
            "afterany",
        ],
    );
    let first = dir.path().join("job-tune.sbatch");
    let text = fs::read_to_string(&first).unwrap();
    assert_contains(&text, &["--array=1-4", "--tuning-cell \"$SLURM_ARRAY_TASK_ID\""]);
    let task = |script: &Path, line: &str| {
        let mut task = Command::new("bash");
        task.arg(script).env("SLURM_ARRAY_TASK_ID", line);
        task
    };
    // Before its tuning a cell does not run.
    let output = task(&script, "1").output().unwrap();
    let (stdout, _) = output_text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_contains(
        &stdout,
        &["not started: paper-seed1: 2 of the 2 tuning cells", "1 not started"],
    );
    assert!(!folder.join("cells/paper-seed1").exists() && !folder.join("choices").exists());
    for line in ["1", "2"] {
        let (stdout, _) = succeeds(&mut task(&first, line));
        assert_contains(&stdout, &["1 of 1 cells finished"]);
    }
    succeeds(&mut task(&script, "1"));
    assert!(folder.join("cells/paper-seed1/finished").exists());
    assert!(folder.join("choices/paper.json").exists());
    let sentence = refused(&mut sweep(&file, &folder, &["--tuning-cell", "5"]));
    assert_contains(&sentence, &["--tuning-cell 5", "4 cells"]);
}
