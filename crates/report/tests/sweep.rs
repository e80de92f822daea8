//! Reports of synthetic sweeps: the statistics match the runs, unfinished cells are excluded,
//! verdicts claim only what the number of seeds allows.

mod synthetic;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use leyden_core::record::Record;
use leyden_report::sweep::{SweepRuns, VerdictKind, load_sweep, summarise, write_sweep};
use leyden_report::{Options, ReportError};
use leyden_sweep::{Cell, State};
use synthetic::{HOSTILE, Plan};
use tempfile::TempDir;

/// A sweep folder of variants by name and end reward, with seeds from 1 on; all finished.
struct Planned {
    variants: Vec<(&'static str, f64)>,
    seeds: u64,
    /// Lines for `sweep.toml`.
    settings: &'static str,
}

impl Planned {
    fn plan(&self, end: f64, seed: u64) -> Plan {
        Plan { name: "cell", seed, steps: 30, tasks: 40, end, ..Plan::default() }
    }

    fn cell(name: &str, seed: u64) -> Cell {
        Cell {
            id: format!("{name}-seed{seed}"),
            variant: name.to_owned(),
            seed,
            overrides: vec![format!("name=\"{name}\""), format!("x=\"{name}\"")],
        }
    }

    fn write(&self, dir: &Path) -> PathBuf {
        let root = dir.join("sweep");
        let mut lines = String::new();
        for seed in 1..=self.seeds {
            for (name, end) in &self.variants {
                let cell = Self::cell(name, seed);
                lines.push_str(&(serde_json::to_string(&cell).unwrap() + "\n"));
                let made = self.plan(*end, seed).write(&dir.join(name));
                let folder = root.join("cells").join(&cell.id);
                fs::create_dir_all(root.join("cells")).unwrap();
                fs::rename(made, &folder).unwrap();
                fs::write(folder.join("finished"), "").unwrap();
            }
        }
        fs::write(root.join("cells.jsonl"), lines).unwrap();
        fs::write(root.join("sweep.toml"), format!("base = 'x.toml'\n{}", self.settings)).unwrap();
        root
    }

    /// Sampled test reward by step.
    fn curve(&self, end: f64, seed: u64) -> Vec<(f64, f64)> {
        let records = self.plan(end, seed).records();
        let sampled = records.iter().filter_map(|record| match record {
            Record::Eval(eval) if eval.mode == "sampled" => Some(eval),
            _ => None,
        });
        sampled.map(|eval| (eval.step as f64, eval.reward_mean)).collect()
    }
}

fn two(seeds: u64) -> Planned {
    Planned { variants: vec![("good", 0.9), ("plain", 0.5)], seeds, settings: BASELINE }
}

const BASELINE: &str = "baseline = 'plain'\n[report]\nthreshold = 0.4\n";

fn page_only() -> Options {
    Options { files: false, ..Options::default() }
}

fn written(sweep: &SweepRuns, out: &Path, options: &Options) -> BTreeMap<String, String> {
    let written = write_sweep(sweep, out, options).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    written.files.iter().map(|path| (name(path), text(path))).collect()
}

/// Interquartile mean of five: without the lowest and the highest.
fn iqm_of_five(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[1..4].iter().sum::<f64>() / 3.0
}

#[test]
fn the_statistics_match_the_runs() {
    let dir = TempDir::new().unwrap();
    let planned = two(5);
    let sweep = load_sweep(&planned.write(dir.path())).unwrap();
    let summary = summarise(&sweep);
    assert_eq!((summary.mode.as_str(), summary.threshold), ("sampled", Some(0.4)));
    let [good, plain] = &summary.variants[..] else { panic!("two variants") };
    let curves = |end| (1..=5).map(|seed| planned.curve(end, seed)).collect::<Vec<_>>();
    for (variant, end) in [(good, 0.9), (plain, 0.5)] {
        let curves = curves(end);
        let last = |curve: &Vec<(f64, f64)>| curve.last().unwrap().1;
        let finals: Vec<f64> = curves.iter().map(last).collect();
        assert_eq!(variant.finals(), finals);
        let measured = variant.final_reward.unwrap();
        assert!((measured.value - iqm_of_five(finals.clone())).abs() < 1e-12);
        let (low, high) = measured.interval.unwrap();
        let (least, most) = (
            finals.iter().copied().fold(1.0, f64::min),
            finals.iter().copied().fold(0.0, f64::max),
        );
        assert!(least <= low && low <= measured.value && measured.value <= high && high <= most);
        // Evaluations at 0, 10, 20, 30: the trapezoid rule, by hand.
        let area = |c: &Vec<(f64, f64)>| (c[0].1 / 2.0 + c[1].1 + c[2].1 + c[3].1 / 2.0) / 3.0;
        let expected = iqm_of_five(curves.iter().map(area).collect());
        assert!((variant.area.unwrap().value - expected).abs() < 1e-12);
        let arrival = |c: &Vec<(f64, f64)>| c.iter().find(|(_, r)| *r >= 0.4).map(|(s, _)| *s);
        assert_eq!(variant.steps_to, curves.iter().map(arrival).collect::<Vec<_>>());
    }
    // Every good run ends above every plain one.
    assert_eq!(good.verdict.kind, VerdictKind::Better);
    assert_eq!(good.improvement.unwrap().value, 1.0);
    let difference = good.final_reward.unwrap().value - plain.final_reward.unwrap().value;
    assert!((good.difference.unwrap().value - difference).abs() < 1e-12);
    assert_eq!(plain.verdict.kind, VerdictKind::Baseline);
    // 30 steps of 128 rollouts; 250 calls per step; timings as written by the plan.
    let cost = good.cost.unwrap();
    assert_eq!((cost.rollouts, cost.trained, cost.learned), (3840.0, 192_000.0, 105_000.0));
    assert!((cost.seconds - 30.0 * 1.52).abs() < 1e-9 && cost.evaluation_seconds == 0.0);
    assert!(cost.generated > 30.0 * 250.0 * 12.0 && cost.generated < 30.0 * 250.0 * 25.0);
}

#[test]
fn the_files_have_the_numbers_and_the_page_its_sections() {
    let dir = TempDir::new().unwrap();
    let sweep = load_sweep(&two(5).write(dir.path())).unwrap();
    let summary = summarise(&sweep);
    let files = written(&sweep, &dir.path().join("report"), &Options::default());
    let page = &files["index.html"];
    for id in ["verdicts", "table", "cost", "comparison", "curves", "cells"] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "no section {id}");
    }
    for name in ["final_reward", "area", "improvement", "profile", "reward", "reward_train"] {
        assert!(files.contains_key(&format!("{name}.svg")), "no {name}.svg");
        assert!(files.contains_key(&format!("{name}.png")), "no {name}.png");
    }
    let value = summary.variants[0].final_reward.unwrap();
    let (low, high) = value.interval.unwrap();
    let words = format!("{:.3} [{low:.3}, {high:.3}]", value.value);
    assert!(page.contains(&words) && files["sweep.md"].replace("\\[", "[").contains(&words));
    assert!(files["sweep.md"].contains("better than the baseline"), "{}", files["sweep.md"]);
    let mut rows = files["variants.csv"].lines();
    let columns = rows.next().unwrap().split(',').count();
    assert!(rows.all(|row| row.starts_with("plain,") || row.starts_with("good,")));
    let plain = files["variants.csv"].lines().find(|row| row.starts_with("plain,")).unwrap();
    assert_eq!(plain.split(',').count(), columns, "{plain}");
    assert_eq!(files["cells.csv"].lines().count(), 1 + 10);
    assert!(files["cells.csv"].contains("good-seed3,good,3,finished,30,"));
    // An unchanged sweep gives an unchanged report.
    let again = written(&sweep, &dir.path().join("again"), &Options::default());
    assert!(files == again, "equal sweeps gave different reports");
}

#[test]
fn few_seeds_give_numbers_and_no_verdict() {
    let dir = TempDir::new().unwrap();
    let sweep = load_sweep(&two(3).write(dir.path())).unwrap();
    let summary = summarise(&sweep);
    let good = &summary.variants[0];
    assert_eq!(good.verdict.kind, VerdictKind::TooFew);
    assert!(good.verdict.words.contains("3 seeds each"), "{}", good.verdict.words);
    assert!(good.final_reward.unwrap().interval.is_some());

    let dir = TempDir::new().unwrap();
    let sweep = load_sweep(&two(1).write(dir.path())).unwrap();
    let one = &summarise(&sweep).variants[0];
    assert_eq!(one.verdict.kind, VerdictKind::TooFew);
    let intervals = [one.final_reward, one.area, one.improvement, one.difference];
    assert!(intervals.iter().all(|measured| measured.unwrap().interval.is_none()));
    write_sweep(&sweep, &dir.path().join("r"), &page_only()).unwrap();
}

#[test]
fn equal_variants_are_not_called_different_nor_equal() {
    let dir = TempDir::new().unwrap();
    let variants = vec![("one", 0.7), ("other", 0.7)];
    let planned = Planned { variants, seeds: 5, settings: "" };
    let summary = summarise(&load_sweep(&planned.write(dir.path())).unwrap());
    // The first variant is the default baseline; the threshold is nine tenths of its final reward.
    assert_eq!(summary.variants[0].verdict.kind, VerdictKind::Baseline);
    let end = summary.variants[0].final_reward.unwrap().value;
    assert!((summary.threshold.unwrap() - 0.9 * end).abs() < 1e-12 && !summary.threshold_given);
    let verdict = &summary.variants[1].verdict;
    assert_eq!(verdict.kind, VerdictKind::Undecided);
    assert!(verdict.words.contains("not equality"), "{}", verdict.words);
    assert!((summary.variants[1].improvement.unwrap().value - 0.5).abs() < 1e-12);
}

#[test]
fn unfinished_cells_have_curves_but_are_excluded_from_the_statistics() {
    let dir = TempDir::new().unwrap();
    let root = two(5).write(dir.path());
    let folder = |id: &str| root.join("cells").join(id);
    // One stopped, one failed, one not started, one with damaged metrics.
    fs::remove_file(folder("good-seed1").join("finished")).unwrap();
    fs::remove_file(folder("good-seed2").join("finished")).unwrap();
    fs::create_dir(root.join("status")).unwrap();
    fs::write(root.join("status/good-seed2.failed"), "step 3: the loss is NaN\n").unwrap();
    fs::remove_dir_all(folder("plain-seed3")).unwrap();
    let metrics = folder("plain-seed4").join("metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, whole.replacen("{\"kind\"", "{kind", 1)).unwrap();

    let sweep = load_sweep(&root).unwrap();
    let summary = summarise(&sweep);
    let seeds = |index: usize| -> Vec<u64> {
        summary.variants[index].measures.iter().map(|(seed, _)| *seed).collect()
    };
    assert_eq!((seeds(0), seeds(1)), (vec![3, 4, 5], vec![1, 2, 5]));
    let failed = State::Failed("step 3: the loss is NaN".to_owned());
    assert_eq!(sweep.variants[0].cells[1].state, failed);
    let files = written(&sweep, &dir.path().join("report"), &page_only());
    for words in ["good-seed2: failed: step 3: the loss is NaN", "plain-seed3: not begun"] {
        assert!(files["sweep.md"].contains(words), "{}", files["sweep.md"]);
    }
    assert!(files["index.html"].contains("plain-seed4 is excluded: "));
    let curves = &files["curves.csv"];
    assert!(curves.starts_with("experiment,seed,step,"), "{curves}");
    assert!(curves.contains("\ngood,seed 1,0,"), "{curves}");
}

#[test]
fn incomparable_cells_are_noted() {
    let dir = TempDir::new().unwrap();
    let root = two(2).write(dir.path());
    let folder = root.join("cells/good-seed1");
    fs::write(folder.join("provenance.json"), r#"{"git_revision": "ffffffffffffffff"}"#).unwrap();
    let metrics = folder.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    let until: Vec<&str> = text.lines().filter(|line| !line.contains("\"step\":30,")).collect();
    fs::write(&metrics, until.join("\n") + "\n").unwrap();
    let sweep = load_sweep(&root).unwrap();
    assert!(sweep.notes.iter().any(|note| note.contains("2 revisions")), "{:?}", sweep.notes);
    let notes = summarise(&sweep).notes;
    assert!(notes.iter().any(|note| note.contains("different steps: 20, 30")), "{notes:?}");
}

#[test]
fn a_sweep_that_cannot_be_reported_is_an_error() {
    let dir = TempDir::new().unwrap();
    let none = load_sweep(dir.path()).unwrap_err().to_string();
    assert!(none.contains("sweep.toml"), "{none}");
    let root = two(1).write(dir.path());
    fs::write(root.join("sweep.toml"), "base = 'x.toml'\nbaseline = 'plane'\n").unwrap();
    let error = load_sweep(&root).unwrap_err().to_string();
    assert!(error.contains("`plane`") && error.contains("good; plain"), "{error}");
    fs::write(root.join("sweep.toml"), "base = 'x.toml'\n").unwrap();
    fs::remove_dir_all(root.join("cells")).unwrap();
    let sweep = load_sweep(&root).unwrap();
    let out = dir.path().join("report");
    let error = write_sweep(&sweep, &out, &page_only()).unwrap_err();
    assert!(matches!(error, ReportError::EmptySweep(_)) && !out.exists());
}

#[test]
fn nothing_in_a_sweep_breaks_out_of_the_page() {
    let dir = TempDir::new().unwrap();
    let root = two(2).write(dir.path());
    let hostile = serde_json::to_string(HOSTILE).unwrap();
    let cells = fs::read_to_string(root.join("cells.jsonl")).unwrap();
    let cells = cells.replace("\"variant\":\"good\"", &format!("\"variant\":{hostile}"));
    let cells = cells.replace("\"overrides\":[", &format!("\"overrides\":[{hostile},"));
    fs::write(root.join("cells.jsonl"), cells).unwrap();
    fs::create_dir(root.join("status")).unwrap();
    fs::remove_file(root.join("cells/good-seed1/finished")).unwrap();
    fs::write(root.join("status/good-seed1.failed"), HOSTILE).unwrap();
    let sweep = load_sweep(&root).unwrap();
    let out = dir.path().join("report");
    let files = written(&sweep, &out, &Options::default());
    for (name, text) in files.iter().filter(|(n, _)| n.ends_with("html") || n.ends_with("svg")) {
        assert!(!text.contains("<script") && !text.contains("<img"), "markup in {name}");
        assert!(!text.contains(['\u{202e}', '\u{0}']), "hidden letters in {name}");
    }
    assert!(files["index.html"].contains("&lt;script&gt;"));
}
