//! Runs that are killed or run out of disk space: the same command resumes them, and the resulting
//! files are identical to those of an uninterrupted run.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    LEYDEN, SHORT, Trained, assert_contains, checkout, output_text, quickstart, succeeds,
};

/// Starts `command` and kills it as soon as `now` returns true; returns whether it was killed
/// before it ended.
fn killed_when(command: &mut Command, now: impl Fn() -> bool) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !now() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(300), "the moment never came");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

/// Whether `metrics.jsonl` has the line of this step.
fn has_step(folder: &Path, step: u64) -> bool {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    text.contains(&format!("{{\"kind\":\"step\",\"schema\":1,\"step\":{step},"))
}

#[test]
fn a_repeatedly_killed_run_gives_the_bytes_of_an_uninterrupted_one() {
    let runs = tempfile::tempdir().unwrap();
    // More steps than the last kill needs, so that the run does not finish before it.
    let longer = ["train.steps=6"];
    let alone = runs.path().join("alone");
    succeeds(&mut quickstart(&alone, &longer));
    assert!(has_step(&alone, 6), "the format of the metrics has changed");

    let killed = runs.path().join("killed");
    let again = || quickstart(&killed, &longer);
    // Before the first line; before the first checkpoint; while the first is written or just
    // after; before the second.
    assert!(killed_when(&mut again(), || killed.join("config.toml").exists()));
    assert!(killed_when(&mut again(), || has_step(&killed, 1)));
    assert!(killed_when(&mut again(), || {
        let entries = fs::read_dir(killed.join("checkpoints"));
        entries.is_ok_and(|mut entries| entries.next().is_some())
    }));
    assert!(killed_when(&mut again(), || has_step(&killed, 3)));
    let (stdout, stderr) = succeeds(&mut again());
    assert_contains(&stdout, &["finished: "]);
    assert_contains(&stderr, &["resuming from the checkpoint of step "]);
    Trained::of(&killed).assert_same(&Trained::of(&alone));
}

/// Runs in a separate file system with space for one checkpoint but not two, and again after
/// enlarging it. Lists the checkpoints in between.
const FULL_DISK: &str = r#"
mount -t tmpfs -o size="$SIZE" none "$DISK" || exit 99
"$@" > "$OUT/first.txt" 2>&1
echo $? > "$OUT/first.code"
ls "$DISK/run/checkpoints" > "$OUT/checkpoints.txt"
mount -o remount,size=1g "$DISK" || exit 99
"$@" || exit 1
cp -r "$DISK/run/metrics.jsonl" "$DISK/run/final" "$OUT"
"#;

#[test]
fn a_full_disk_loses_only_the_checkpoint_that_did_not_fit() {
    let runs = tempfile::tempdir().unwrap();
    let alone = runs.path().join("alone");
    succeeds(&mut quickstart(&alone, &[]));
    let checkpoint = size(&alone.join("checkpoints/step-000002"));
    let rest = size(&alone) - size(&alone.join("checkpoints"));

    let (disk, out) = (runs.path().join("disk"), runs.path().join("out"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&out).unwrap();
    let script = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", FULL_DISK, "sh"])
        .args([LEYDEN, "run", "benchmarks/experiments/mini/calc.toml", "--folder"])
        .arg(disk.join("run"))
        .args(SHORT.iter().flat_map(|change| ["--set", change]))
        .env("SIZE", (rest + checkpoint * 3 / 2).to_string())
        .env("DISK", &disk)
        .env("OUT", &out)
        .env("RUST_BACKTRACE", "1")
        .current_dir(checkout())
        .output();
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    match script {
        Ok(output) if output.status.success() => {}
        Ok(output) if out.join("first.code").exists() => panic!("{:?}", output_text(&output)),
        // Private mounts are not available: an old kernel or a strict container.
        other => return eprintln!("skipped: cannot mount a private file system: {other:?}"),
    }
    let first = read("first.txt");
    assert_eq!(read("first.code").trim(), "1", "{first}");
    assert_contains(
        first.lines().last().unwrap(),
        &["leyden: step 4", "checkpoint was not written", "No space left", "same command again"],
    );
    assert!(!first.contains("panicked") && !first.contains("backtrace"), "{first}");
    assert_eq!(read("checkpoints.txt").trim(), "step-000002", "and no partial checkpoint");
    Trained::of(&out).assert_same(&Trained::of(&alone));
}

/// Bytes of a file, or of all files below a folder.
fn size(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| size(&entry.unwrap().path())).sum(),
        Err(_) => fs::metadata(path).unwrap().len(),
    }
}
