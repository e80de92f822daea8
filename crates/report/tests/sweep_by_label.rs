//! Comparisons by the values of a label of the test tasks.

#[allow(dead_code, reason = "this program uses a part")]
mod planned;
#[allow(dead_code, reason = "this program uses a part")]
mod synthetic;

use std::path::Path;

use leyden_report::sweep::{ByLabel, load_sweep, summarise};
use planned::{Planned, end_after, page_only, rewrite, written};
use tempfile::TempDir;

const SETTINGS: &str = "baseline = 'plain'\n[report]\nfailed = 'zero'\nby = 'operations'\n";

fn planned() -> Planned {
    Planned { variants: vec![("good", 0.9), ("plain", 0.5)], seeds: 5, settings: SETTINGS }
}

fn found(root: &Path) -> ByLabel {
    summarise(&load_sweep(root).unwrap()).by_label.unwrap()
}

#[test]
fn every_value_has_its_own_comparison() {
    let dir = TempDir::new().unwrap();
    let root = planned().write(dir.path());
    // The last evaluations of one seed, by hand: the others keep what the plan drew.
    for (cell, reward) in [("good-seed1", 0.75), ("plain-seed1", 0.25)] {
        rewrite(&root, cell, |mut line| {
            if line["kind"] == "eval" && line["step"] == 30 {
                line["by_label"]["operations"]["2"] = serde_json::json!([reward, 13]);
            }
            Some(line)
        });
    }
    let by = found(&root);
    let values: Vec<&str> = by.values.iter().map(|value| &*value.value).collect();
    assert_eq!((by.label.as_str(), values.as_slice()), ("operations", &["1", "2", "3"][..]));
    assert_eq!(by.values.iter().map(|value| value.tasks).sum::<usize>(), 40);
    let sweep = load_sweep(&root).unwrap();
    let last = |variant: usize, seed: usize, value: &str| {
        let run = sweep.variants[variant].cells[seed].run.as_ref().unwrap();
        run.evals("sampled").last().unwrap().by_label["operations"][value].0
    };
    assert_eq!((last(0, 0, "2"), last(1, 0, "2")), (0.75, 0.25));
    let mut raw = Vec::new();
    for value in &by.values {
        let [good, plain] = &value.variants[..] else { panic!("two variants") };
        let difference =
            (0..5).map(|k| last(0, k, &value.value) - last(1, k, &value.value)).sum::<f64>() / 5.0;
        let comparison = good.comparison.as_ref().unwrap();
        assert!((comparison.mean - difference).abs() < 1e-12, "{}", value.value);
        assert!(plain.comparison.is_none() && plain.reward.is_some());
        raw.push((comparison.p_value().unwrap(), comparison.adjusted_p.unwrap()));
    }
    // Holm's over the three values: the smallest p is multiplied by three.
    raw.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!((raw[0].1 - (3.0 * raw[0].0).min(1.0)).abs() < 1e-12);
}

#[test]
fn a_failed_cell_counts_as_the_file_says() {
    let dir = TempDir::new().unwrap();
    let root = planned().write(dir.path());
    let before = found(&root).values[0].variants[0].reward.unwrap().value;
    let sweep = load_sweep(&root).unwrap();
    let run = sweep.variants[0].cells[1].run.as_ref().unwrap();
    let own = run.evals("sampled").last().unwrap().by_label["operations"]["1"].0;
    end_after(&root, "good-seed2", 10, "step 11: the loss is NaN");
    let after = found(&root).values[0].variants[0].reward.unwrap().value;
    assert!((after - (before - own / 5.0)).abs() < 1e-12, "{before} {after} {own}");
}

#[test]
fn the_table_is_in_every_output() {
    let dir = TempDir::new().unwrap();
    let root = planned().write(dir.path());
    let sweep = load_sweep(&root).unwrap();
    let files = written(&sweep, &dir.path().join("out"), &page_only());
    assert!(files["sweep.md"].contains("## By operations"), "{}", files["sweep.md"]);
    assert!(files["index.html"].contains("id=\"by-label\""));
    assert_eq!(files["by_label.csv"].lines().count(), 1 + 3 * 2);
}

#[test]
fn an_unknown_label_is_a_note() {
    let dir = TempDir::new().unwrap();
    let settings = "baseline = 'plain'\n[report]\nby = 'depth'\n";
    let root = Planned { settings, ..planned() }.write(dir.path());
    let summary = summarise(&load_sweep(&root).unwrap());
    assert!(summary.by_label.is_none());
    assert!(summary.notes.iter().any(|note| note.contains("`depth`")), "{:?}", summary.notes);
}
