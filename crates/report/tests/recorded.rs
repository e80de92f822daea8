//! Recorded folders: the report of an archive equals that of its runs, active runs are not
//! touched, and the recordings in `results/` reproduce their tables.

mod synthetic;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_report::recorded::{
    ARCHIVE, is_recorded, is_sweep, load_all, record_runs, record_sweep,
};
use leyden_report::sweep::{load_sweep, write_sweep};
use leyden_report::{Options, Written, load, write};
use leyden_sweep::Cell;
use synthetic::Plan;
use tempfile::TempDir;

fn seeds(dir: &Path) -> Vec<PathBuf> {
    let plan = |seed| Plan { seed, steps: 20, tasks: 30, ..Plan::default() };
    (1..=2).map(|seed| plan(seed).write(dir)).collect()
}

/// A sweep of two variants with a seed each, one of which has failed.
fn sweep(dir: &Path) -> PathBuf {
    let root = dir.join("sweep");
    let mut lines = String::new();
    for name in ["good", "plain", "lost"] {
        let id = format!("{name}-seed1");
        let variant = name.to_owned();
        let cell = Cell { id: id.clone(), variant, seed: 1, overrides: vec![], point: None };
        lines.push_str(&(serde_json::to_string(&cell).unwrap() + "\n"));
        if name == "lost" {
            continue;
        }
        let made = Plan { steps: 20, tasks: 30, ..Plan::default() }.write(&dir.join(name));
        let folder = root.join("cells").join(id);
        fs::create_dir_all(root.join("cells")).unwrap();
        fs::rename(made, &folder).unwrap();
        fs::write(folder.join("finished"), "").unwrap();
    }
    fs::create_dir(root.join("status")).unwrap();
    fs::write(root.join("status/lost-seed1.failed"), "out of memory\n").unwrap();
    fs::write(root.join("cells.jsonl"), lines).unwrap();
    fs::write(root.join("sweep.toml"), "name = 's'\nbase = 'x.toml'\nbaseline = 'plain'\n")
        .unwrap();
    fs::write(root.join("base.toml"), "name = 'x'\n").unwrap();
    root
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn page_only() -> Options {
    Options { files: false, ..Options::default() }
}

/// The files of a report by name.
fn files(written: &Written) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    written.files.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

#[test]
fn a_recording_reproduces_the_report() {
    let dir = TempDir::new().unwrap();
    let runs = seeds(dir.path());
    let out = dir.path().join("kept");
    let written = record_runs(&runs, &out).unwrap();
    let expected =
        ["README.md", "config.toml", "provenance.json", "reward.png", ARCHIVE, "table.md"];
    assert_eq!(names(&out), expected);
    assert!(is_recorded(&out) && !is_sweep(&out));
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.starts_with("# mini-calc-0.0003-1; mini-calc-0.0003-2 differs in seed\n"));
    let readme = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(readme.contains("](reward.png)") && readme.contains("--record"), "{readme}");

    let again = load_all(std::slice::from_ref(&out)).unwrap();
    assert_eq!(again[1].folder, out.join("mini-calc-0.0003-2"));
    let report = write(&again, &dir.path().join("again"), &page_only()).unwrap();
    assert_eq!(report.table, written.table);
    let direct =
        write(&load_all(&runs).unwrap(), &dir.path().join("direct"), &page_only()).unwrap();
    let (mut again, direct) = (files(&report), files(&direct));
    // The page names the folders.
    let page = String::from_utf8(again["index.html"].clone()).unwrap();
    let escaped = |path: &Path| path.to_str().unwrap().replace('/', "&#x2f;");
    let moved = page.replace(&escaped(&out), &escaped(dir.path()));
    again.insert("index.html".to_owned(), moved.into_bytes());
    assert!(again == direct, "a file of the report differs");
    assert!(page.contains("Sample rollouts") && page.contains("credit 1"));

    // The same runs give the same bytes, also when they are read from the recording.
    let bytes = fs::read(out.join(ARCHIVE)).unwrap();
    record_runs(std::slice::from_ref(&out), &out).unwrap();
    assert!(bytes == fs::read(out.join(ARCHIVE)).unwrap());
    assert_eq!(names(&out), expected);
}

#[test]
fn a_run_in_a_recording_is_read_by_its_path() {
    let dir = TempDir::new().unwrap();
    let runs = seeds(dir.path());
    let out = dir.path().join("kept");
    // The order of the report is kept, whatever the names.
    let reversed: Vec<PathBuf> = runs.iter().rev().cloned().collect();
    record_runs(&reversed, &out).unwrap();
    let of_all: Vec<Option<i64>> =
        load_all(std::slice::from_ref(&out)).unwrap().iter().map(|run| run.seed).collect();
    assert_eq!(of_all, [Some(2), Some(1)]);
    let one = load(&out.join("mini-calc-0.0003-2")).unwrap();
    assert_eq!((one.seed, one.steps.len()), (Some(2), 20));
    let absent = load(&out.join("mini-calc-seed9")).unwrap_err().to_string();
    assert!(absent.contains(ARCHIVE) && absent.contains("mini-calc-0.0003-1"), "{absent}");
    let outside = load(&out.join("../kept/../../etc")).unwrap_err().to_string();
    assert!(outside.contains("etc"), "{outside}");
    let several = load(&out).unwrap_err().to_string();
    assert!(several.contains("several runs"), "{several}");
    let twice = [runs[0].clone(), out.join("mini-calc-0.0003-1")];
    let error = record_runs(&twice, &dir.path().join("x")).unwrap_err().to_string();
    assert!(error.contains("`mini-calc-0.0003-1`"), "{error}");
}

#[test]
fn a_damaged_recording_is_named() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("kept");
    record_runs(&seeds(dir.path()), &out).unwrap();
    let archive = out.join(ARCHIVE);
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let error = load_all(std::slice::from_ref(&out)).unwrap_err().to_string();
    assert!(error.contains("kept/runs.tar.zst cannot be used"), "{error}");
    // So is damage from before packing.
    let folder = seeds(dir.path()).remove(0);
    let metrics = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    fs::write(folder.join("metrics.jsonl"), metrics.replacen("{\"kind\"", "{kind", 1)).unwrap();
    let error = record_runs(&[folder], &dir.path().join("other")).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl line 1"), "{error}");
}

#[test]
fn a_sweep_is_recorded_with_its_failures() {
    let dir = TempDir::new().unwrap();
    let root = sweep(dir.path());
    let out = dir.path().join("kept");
    let written = record_sweep(&root, &out).unwrap();
    let expected = [
        "README.md",
        "base.toml",
        "cells.csv",
        "final_reward.png",
        "provenance.json",
        "reward.png",
        ARCHIVE,
        "sweep.md",
        "sweep.toml",
        "variants.csv",
    ];
    assert_eq!(names(&out), expected);
    assert!(is_sweep(&out) && written.table.contains("lost-seed1: failed: out of memory"));
    let again = load_sweep(&out).unwrap();
    let report = write_sweep(&again, &dir.path().join("report"), &page_only()).unwrap();
    assert_eq!(report.table, written.table);
    assert_eq!(load(&out.join("cells/good-seed1")).unwrap().steps.len(), 20);
    record_sweep(&out, &out).unwrap();
    assert_eq!(names(&out), expected);
    // The sweep itself is unchanged.
    assert!(root.join("cells/good-seed1/rollouts.sqlite").is_file());
    assert!(root.join("cells.jsonl").is_file());
}

#[test]
fn an_earlier_recording_is_replaced_but_an_active_run_is_kept() {
    let dir = TempDir::new().unwrap();
    let runs = seeds(dir.path());
    // Complete run folders next to the files of a report, and a README that shows two images.
    write(&load_all(&runs).unwrap(), dir.path(), &Options::default()).unwrap();
    fs::remove_file(runs[0].join("rollouts.sqlite")).unwrap();
    fs::write(dir.path().join("README.md"), "![a](entropy.png) ![b](groups.png)\n").unwrap();
    fs::write(dir.path().join("notes.txt"), "mine\n").unwrap();
    record_runs(&runs, dir.path()).unwrap();
    // The second run still has its rollouts, which no recording keeps.
    let expected = [
        "README.md",
        "config.toml",
        "entropy.png",
        "groups.png",
        "mini-calc-0.0003-2",
        "notes.txt",
        "provenance.json",
        ARCHIVE,
        "table.md",
    ];
    assert_eq!(names(dir.path()), expected);
    assert_eq!(names(&runs[1]).len(), 5);
}

/// Every recorded folder of a checkout.
fn recordings(folder: &Path, found: &mut Vec<PathBuf>) {
    if is_recorded(folder) {
        found.push(folder.to_owned());
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            recordings(&path, found);
        }
    }
}

#[test]
fn recorded_tables_match_their_archives() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results");
    let mut found = Vec::new();
    recordings(&results, &mut found);
    assert!(found.len() >= 11, "{found:?}");
    let mut other = Vec::new();
    for folder in found {
        let dir = TempDir::new().unwrap();
        let (written, tables): (Written, &[&str]) = if is_sweep(&folder) {
            let sweep = load_sweep(&folder).unwrap();
            let written = write_sweep(&sweep, dir.path(), &page_only()).unwrap();
            (written, &["sweep.md", "variants.csv", "cells.csv"])
        } else {
            let runs = load_all(std::slice::from_ref(&folder)).unwrap();
            (write(&runs, dir.path(), &page_only()).unwrap(), &["table.md"])
        };
        let made = files(&written);
        let tuning = made.contains_key("tuning.csv").then_some("tuning.csv");
        for table in tables.iter().copied().chain(tuning) {
            let kept = fs::read(folder.join(table)).unwrap();
            if made[table] != kept {
                other.push(folder.join(table));
            }
        }
        let bytes: u64 =
            names(&folder).iter().map(|name| folder.join(name).metadata().unwrap().len()).sum();
        assert!(bytes < 3 << 20, "{} has {bytes} bytes", folder.display());
    }
    assert!(other.is_empty(), "write these anew with `leyden report --record`: {other:#?}");
}
