//! Reports of synthetic sweeps that tune: the table is that of the tuning cells, which are in no
//! other part of the report, and a recording reproduces it.

mod planned;
mod synthetic;

use std::fs;
use std::path::{Path, PathBuf};

use leyden_report::recorded::record_sweep;
use leyden_report::sweep::{GridPoint, Tuning, load_sweep, summarise, tuning, tuning_areas};
use leyden_sweep::{Cell, Choice, SweepFolder};
use planned::{Planned, end_after, fail, page_only, rewrite, set_final, two, written};
use synthetic::lines;
use tempfile::TempDir;

const SEEDS: [u64; 2] = [101, 102];
const RATES: [&str; 3] =
    ["train.learning_rate=0.001", "train.learning_rate=0.002", "train.learning_rate=0.004"];

/// The rewards at the end of tuning cells, by point: `good` is best in the middle of the grid,
/// `plain` at its end.
const ENDS: [(&str, [f64; 3]); 2] = [("good", [0.5, 0.9, 0.7]), ("plain", [0.3, 0.4, 0.6])];

fn cell(variant: &str, point: usize, seed: u64) -> Cell {
    Cell {
        id: format!("tune-{variant}-point{}-seed{seed}", point + 1),
        variant: variant.to_owned(),
        seed,
        overrides: vec![format!("name=\"{variant}\""), RATES[point].to_owned()],
        point: Some(vec![RATES[point].to_owned()]),
    }
}

fn cells(variant: &str) -> Vec<Cell> {
    (0..3).flat_map(|point| SEEDS.map(|seed| cell(variant, point, seed))).collect()
}

/// Adds a tuning to a sweep folder, whose cells have ended.
fn tuned(dir: &Path, seeds: u64) -> PathBuf {
    let planned = two(seeds);
    let root = planned.write(dir);
    for (variant, ends) in ENDS {
        for own in cells(variant) {
            let point = RATES.iter().position(|rate| own.overrides[1] == *rate).unwrap();
            let made = planned.plan(ends[point], own.seed).write(&dir.join("tuning"));
            let folder = root.join("cells").join(&own.id);
            fs::rename(made, &folder).unwrap();
            fs::write(folder.join("finished"), "").unwrap();
        }
    }
    let all: Vec<Cell> = ENDS.iter().flat_map(|(variant, _)| cells(variant)).collect();
    fs::write(root.join("tuning.jsonl"), lines(&all)).unwrap();
    fs::create_dir_all(root.join("status")).unwrap();
    root
}

/// Makes the choices as a sweep does.
fn choose(root: &Path) {
    let folder = SweepFolder::at(root);
    for (variant, _) in ENDS {
        let areas = tuning_areas(&folder, &cells(variant)).unwrap();
        let choice = Choice::of(&cells(variant), &areas).unwrap();
        let file = folder.choice_file(variant);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, serde_json::to_string(&choice).unwrap()).unwrap();
    }
}

fn table(root: &Path) -> Tuning {
    tuning(&load_sweep(root).unwrap()).unwrap()
}

/// By the trapezoid rule over evaluations at 0, 10, 20 and 30.
fn area(planned: &Planned, end: f64, seed: u64) -> f64 {
    let curve = planned.curve(end, seed);
    (curve[0].1 / 2.0 + curve[1].1 + curve[2].1 + curve[3].1 / 2.0) / 3.0
}

#[test]
fn the_table_has_the_areas_of_the_tuning_cells() {
    let dir = TempDir::new().unwrap();
    let root = tuned(dir.path(), 3);
    // Before the choice nothing is marked.
    let before = table(&root);
    assert!(before.variants.iter().flat_map(|v| &v.points).all(|point| !point.chosen));
    assert!(before.notes.is_empty());
    choose(&root);
    let found = table(&root);
    assert_eq!((found.seeds.as_slice(), found.cells), (&SEEDS[..], 12));
    for (variant, (name, ends)) in found.variants.iter().zip(ENDS) {
        assert_eq!((variant.name.as_str(), variant.points.len()), (name, 3));
        for (point, end) in variant.points.iter().zip(ends) {
            let [one, other] = SEEDS.map(|seed| area(&two(3), end, seed));
            assert!((point.areas[0] - one).abs() < 1e-12 && (point.areas[1] - other).abs() < 1e-12);
            assert!((point.mean.unwrap() - (one + other) / 2.0).abs() < 1e-12);
            // Of two values: half their difference.
            let error = (one - other).abs() / 2.0;
            assert!((point.standard_error.unwrap() - error).abs() < 1e-12);
            assert_eq!((point.planned, point.failed), (2, 0));
            assert!(point.generated > 1e4);
        }
    }
    let chosen = |index: usize| -> Vec<&GridPoint> {
        found.variants[index].points.iter().filter(|point| point.chosen).collect()
    };
    assert_eq!(chosen(0)[0].overrides, ["train.learning_rate=0.002"]);
    assert_eq!(chosen(1)[0].overrides, ["train.learning_rate=0.004"]);
    // The middle of the grid needs no warning, its end does.
    let words = "The chosen train.learning_rate=0.004 of plain is the highest of the values that \
                 were tried: a higher one may be better.";
    assert_eq!(found.notes, [words]);
}

#[test]
fn the_tuning_is_shown_and_in_no_other_part_of_the_report() {
    let dir = TempDir::new().unwrap();
    let untuned = two(3).write(&dir.path().join("untuned"));
    let untuned = load_sweep(&untuned).unwrap();
    assert!(untuned.tuning.is_empty() && tuning(&untuned).is_none());
    let without = written(&untuned, &dir.path().join("a"), &page_only());
    let root = tuned(dir.path(), 3);
    choose(&root);
    let sweep = load_sweep(&root).unwrap();
    assert_eq!(sweep.variants[0].overrides[1], "train.learning_rate=0.002");
    assert_eq!(
        summarise(&sweep).variants[0].final_reward,
        summarise(&untuned).variants[0].final_reward
    );
    let with = written(&sweep, &dir.path().join("b"), &page_only());
    for (name, text) in &without {
        match name.as_str() {
            "sweep.md" => assert!(with[name].starts_with(text.as_str())),
            "index.html" => assert!(!text.contains("uning")),
            _ => assert!(with[name] == *text, "{name} differs"),
        }
    }
    let names: Vec<&String> = with.keys().filter(|name| !without.contains_key(*name)).collect();
    assert_eq!(names, ["tuning.csv"]);

    let markdown = &with["sweep.md"][without["sweep.md"].len()..];
    let point = &table(&root).variants[0].points[1];
    let (mean, error) = (point.mean.unwrap(), point.standard_error.unwrap());
    let row =
        format!("| good | train.learning_rate=0.002 | 2 of 2 | 0 of 2 | {mean:.3} | {error:.3} | ");
    assert!(markdown.contains(&row), "{markdown}");
    for words in [
        "The tuning seeds (101, 102) are separate from the seeds of the comparison",
        "test reward, sampled, over the tuning seeds",
        "The 12 tuning cells generated ",
        "- The chosen train.learning\\_rate=0.004 of plain is the highest",
    ] {
        assert!(markdown.replace("\\_", "_").contains(&words.replace("\\_", "_")), "{markdown}");
    }
    assert_eq!(markdown.matches(" chosen |").count(), 2, "{markdown}");
    let page = &with["index.html"];
    for words in ["<section id=\"tuning\">", "is the highest", "tune-good-point1-seed101"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.contains("Tuning: 12 of 12 cells ended, points chosen for 2 of 2 variants."));
    let csv: Vec<&str> = with["tuning.csv"].lines().collect();
    assert_eq!(csv.len(), 1 + 6);
    let start = format!("good,train.learning_rate=0.002,2,2,0,{mean},{error},true,");
    assert!(csv[2].starts_with(&start), "{}", csv[2]);
    assert_eq!(csv[2].split(',').count(), csv[0].split(',').count());
}

#[test]
fn failed_tuning_cells_count_as_the_sweep_file_says() {
    let dir = TempDir::new().unwrap();
    let root = tuned(dir.path(), 1);
    let folder = SweepFolder::at(&root);
    // One fails after its second evaluation, one before anything is written.
    end_after(&root, "tune-good-point1-seed101", 10, "NaN");
    fs::remove_dir_all(root.join("cells/tune-good-point1-seed102")).unwrap();
    fail(&root, "tune-good-point1-seed102", "killed");
    let curve = two(1).curve(0.5, 101);
    let first = (curve[0].1 + curve[1].1) / 2.0 * 10.0;
    let areas = tuning_areas(&folder, &cells("good")).unwrap();
    assert!((areas[0] - (first + 20.0 * curve[1].1) / 30.0).abs() < 1e-12);
    assert_eq!(areas[1], 0.0);
    let zero = "base = 'x.toml'\nbaseline = 'plain'\n[report]\nfailed = 'zero'\n";
    fs::write(root.join("sweep.toml"), zero).unwrap();
    let areas = tuning_areas(&folder, &cells("good")).unwrap();
    assert!((areas[0] - first / 30.0).abs() < 1e-12);
    let point = &table(&root).variants[0].points[0];
    assert_eq!((point.areas.as_slice(), point.failed), (&areas[..2], 2));
    // A lock that is probed makes no difference to the measure of a failed cell.
    let lock = root.join("status/tune-good-point1-seed101.lock");
    let held = leyden_sweep::claim(&lock).unwrap();
    assert_eq!(tuning_areas(&folder, &cells("good")).unwrap(), areas);
    drop(held);

    // Without a reward or unreadable it cannot be measured.
    rewrite(&root, "tune-good-point2-seed101", |line| (line["kind"] != "eval").then_some(line));
    let error = tuning_areas(&folder, &cells("good")).unwrap_err().to_string();
    assert!(error.contains("tune-good-point2-seed101 is finished but has no sampled"), "{error}");
    let metrics = root.join("cells/tune-good-point2-seed101/metrics.jsonl");
    fs::write(metrics, "{broken}\n{}\n").unwrap();
    let error = tuning_areas(&folder, &cells("good")).unwrap_err().to_string();
    assert!(error.contains("point2-seed101/metrics.jsonl line 1"), "{error}");
    assert_eq!(table(&root).variants[0].points[1].areas.len(), 1);
}

#[test]
fn ties_and_areas_that_have_changed_are_noted() {
    let dir = TempDir::new().unwrap();
    let root = tuned(dir.path(), 1);
    for point in 0..3 {
        for seed in SEEDS {
            let id = cell("good", point, seed).id;
            fs::remove_dir_all(root.join("cells").join(&id)).unwrap();
            fail(&root, &id, "killed");
        }
    }
    choose(&root);
    let notes = table(&root).notes;
    assert!(
        notes[0].starts_with("3 points of good have the same mean area: the first"),
        "{notes:?}"
    );
    assert!(notes[1].contains("train.learning_rate=0.001 of good is the lowest"), "{notes:?}");
    set_final(&root, "tune-plain-point1-seed101", 1.0);
    let notes = table(&root).notes;
    assert!(
        notes.iter().any(|note| note.contains("plain was chosen from other areas")),
        "{notes:?}"
    );
}

#[test]
fn a_sweep_that_is_still_tuning_has_a_report() {
    let dir = TempDir::new().unwrap();
    let root = tuned(dir.path(), 1);
    for id in ["good-seed1", "plain-seed1", "tune-plain-point3-seed102"] {
        fs::remove_dir_all(root.join("cells").join(id)).unwrap();
    }
    let sweep = load_sweep(&root).unwrap();
    let files = written(&sweep, &dir.path().join("report"), &page_only());
    let markdown = &files["sweep.md"];
    assert!(markdown.contains("| plain | train.learning_rate=0.004 | 1 of 2 | 0 of 2 | "));
    assert!(
        markdown.contains("Tuning cells that are not finished:\n\n- tune-plain-point3-seed102")
    );
    assert!(
        files["index.html"].contains("11 of 12 cells ended, points chosen for 0 of 2 variants")
    );
}

#[test]
fn a_recording_has_the_tuning() {
    let dir = TempDir::new().unwrap();
    let root = tuned(dir.path(), 1);
    fail(&root, "tune-plain-point1-seed101", "killed");
    choose(&root);
    let before = table(&root);
    let out = dir.path().join("kept");
    let made = record_sweep(&root, &out).unwrap();
    assert_eq!(table(&out), before);
    let again = written(&load_sweep(&out).unwrap(), &dir.path().join("again"), &page_only());
    assert_eq!(again["sweep.md"], made.table);
    for name in ["sweep.md", "tuning.csv", "cells.csv"] {
        assert_eq!(again[name], fs::read_to_string(out.join(name)).unwrap());
    }
    // Recording the recording changes nothing.
    let bytes = fs::read(out.join("runs.tar.zst")).unwrap();
    record_sweep(&out, &out).unwrap();
    assert!(fs::read(out.join("runs.tar.zst")).unwrap() == bytes);
    assert!(root.join("choices/good.json").is_file() && root.join("tuning.jsonl").is_file());
}
