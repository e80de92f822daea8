//! Reports of synthetic sweeps: the statistics match the runs, cells that have not ended are
//! excluded, verdicts claim only what the runs show. How failed cells count is in
//! `sweep_outcomes.rs`.

mod planned;
mod synthetic;

use std::fs;

use leyden_report::sweep::{Design, VerdictKind, load_sweep, summarise, write_sweep};
use leyden_report::{Options, ReportError};
use leyden_sweep::State;
use planned::{Planned, end_after, fail, page_only, set_final, two, written};
use synthetic::HOSTILE;
use tempfile::TempDir;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half the 95 % interval of a mean of five: t.ppf(0.975, 4) s / √5.
fn half_of_five(values: &[f64]) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean(values)).powi(2)).sum();
    2.776_445_105_2 * (squares / 4.0 / 5.0).sqrt()
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
    let last = |curve: &Vec<(f64, f64)>| curve.last().unwrap().1;
    for (variant, end) in [(good, 0.9), (plain, 0.5)] {
        let curves = curves(end);
        let finals: Vec<f64> = curves.iter().map(last).collect();
        assert_eq!(variant.finals(), finals);
        let measured = variant.final_reward.unwrap();
        assert!((measured.value - mean(&finals)).abs() < 1e-12);
        let (low, high) = measured.interval.unwrap();
        let half = half_of_five(&finals);
        assert!((low - (measured.value - half)).abs() < 1e-8);
        assert!((high - (measured.value + half).min(1.0)).abs() < 1e-8);
        // The interquartile mean of five: without the lowest and the highest.
        let mut sorted = finals.clone();
        sorted.sort_by(f64::total_cmp);
        assert!((variant.final_iqm.unwrap() - mean(&sorted[1..4])).abs() < 1e-12);
        // Evaluations at 0, 10, 20, 30: the trapezoid rule, by hand.
        let area = |c: &Vec<(f64, f64)>| (c[0].1 / 2.0 + c[1].1 + c[2].1 + c[3].1 / 2.0) / 3.0;
        let areas: Vec<f64> = curves.iter().map(area).collect();
        assert!((variant.area.unwrap().value - mean(&areas)).abs() < 1e-12);
        let arrival = |c: &Vec<(f64, f64)>| c.iter().find(|(_, r)| *r >= 0.4).map(|(s, _)| *s);
        assert_eq!(variant.steps_to, curves.iter().map(arrival).collect::<Vec<_>>());
        assert_eq!((variant.ended, variant.collapsed), (5, 0));
    }
    // Every good run ends far above the plain one of its seed.
    assert_eq!(good.verdict.kind, VerdictKind::Better);
    assert_eq!(good.improvement.unwrap().value, 1.0);
    let comparison = good.comparison.as_ref().unwrap();
    let paired = Design::Paired { seeds: vec![1, 2, 3, 4, 5], unpaired: vec![] };
    assert_eq!(comparison.design, paired);
    let differences: Vec<f64> =
        curves(0.9).iter().zip(&curves(0.5)).map(|(g, p)| last(g) - last(p)).collect();
    let difference = comparison.difference();
    assert!((difference.value - mean(&differences)).abs() < 1e-12);
    let low = difference.interval.unwrap().0;
    assert!((low - (difference.value - half_of_five(&differences))).abs() < 1e-8);
    // One comparison needs no correction.
    assert_eq!(comparison.adjusted_p, comparison.p_value());
    assert_eq!((plain.verdict.kind, &plain.comparison), (VerdictKind::Baseline, &None));
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
    for name in [
        "final_reward",
        "difference",
        "area",
        "improvement",
        "profile",
        "reward_by_tokens",
        "reward_by_seconds",
        "reward",
        "reward_train",
    ] {
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
    assert!(files["cells.csv"].contains("good-seed3,good,3,finished,complete,30,"));
    // An unchanged sweep gives an unchanged report.
    let again = written(&sweep, &dir.path().join("again"), &Options::default());
    assert!(files == again, "equal sweeps gave different reports");
}

#[test]
fn few_seeds_give_numbers_and_no_verdict() {
    let dir = TempDir::new().unwrap();
    let sweep = load_sweep(&two(2).write(dir.path())).unwrap();
    let summary = summarise(&sweep);
    let good = &summary.variants[0];
    assert_eq!(good.verdict.kind, VerdictKind::TooFew);
    assert!(good.verdict.words.contains("2 seeds each"), "{}", good.verdict.words);
    assert!(good.final_reward.unwrap().interval.is_some());

    let dir = TempDir::new().unwrap();
    let sweep = load_sweep(&two(1).write(dir.path())).unwrap();
    let one = &summarise(&sweep).variants[0];
    assert_eq!(one.verdict.kind, VerdictKind::TooFew);
    let difference = one.comparison.as_ref().map(|comparison| comparison.difference());
    let intervals = [one.final_reward, one.area, one.improvement, difference];
    assert!(intervals.iter().all(|measured| measured.unwrap().interval.is_none()));
    write_sweep(&sweep, &dir.path().join("r"), &page_only()).unwrap();
}

#[test]
fn variants_that_differ_by_chance_are_not_called_different_nor_equal() {
    let dir = TempDir::new().unwrap();
    let variants = vec![("one", 0.7), ("other", 0.7)];
    let planned = Planned { variants, seeds: 4, settings: "" };
    let root = planned.write(dir.path());
    // The synthetic runs of equal seed are equal.
    let same = summarise(&load_sweep(&root).unwrap());
    assert_eq!(same.variants[1].verdict.kind, VerdictKind::Identical);
    assert!((same.variants[1].improvement.unwrap().value - 0.5).abs() < 1e-12);
    // The first variant is the default baseline; the threshold is nine tenths of its final reward.
    assert_eq!(same.variants[0].verdict.kind, VerdictKind::Baseline);
    let end = same.variants[0].final_reward.unwrap().value;
    assert!((same.threshold.unwrap() - 0.9 * end).abs() < 1e-12 && !same.threshold_given);

    // Differences −0.02, 0, 0.02 and 0.04: mean 0.01, standard error 0.012910, and
    // t.ppf(0.95, 3) = 2.353363, so bounds of 0.01 ± 0.030382.
    for (seed, (one, other)) in
        [(0.60, 0.58), (0.70, 0.70), (0.65, 0.67), (0.66, 0.70)].into_iter().enumerate()
    {
        set_final(&root, &format!("one-seed{}", seed + 1), one);
        set_final(&root, &format!("other-seed{}", seed + 1), other);
    }
    let other = summarise(&load_sweep(&root).unwrap()).variants.remove(1);
    assert_eq!(other.verdict.kind, VerdictKind::Undecided);
    let words = "not worse by more than 0.020 and not better by more than 0.040 (one-sided 95 %";
    assert!(other.verdict.words.contains(words), "{}", other.verdict.words);
    // Standard deviation 0.025820: 16 pairs for 0.02.
    assert_eq!(other.comparison.unwrap().seeds_needed, Some(16));
}

/// Without a correction the second variant would be called better.
#[test]
fn claims_are_corrected_for_the_number_of_variants() {
    let dir = TempDir::new().unwrap();
    let variants = vec![("plain", 0.5), ("b", 0.5), ("c", 0.5), ("d", 0.5)];
    let root = Planned { variants, seeds: 4, settings: "" }.write(dir.path());
    let finals = [
        ("plain", [0.50, 0.50, 0.50, 0.50]),
        ("b", [0.52, 0.55, 0.51, 0.54]),
        ("c", [0.60, 0.61, 0.60, 0.62]),
        ("d", [0.45, 0.55, 0.52, 0.49]),
    ];
    for (name, rewards) in finals {
        for (seed, reward) in rewards.iter().enumerate() {
            set_final(&root, &format!("{name}-seed{}", seed + 1), *reward);
        }
    }
    let sweep = load_sweep(&root).unwrap();
    let summary = summarise(&sweep);
    let p = |index: usize| {
        let comparison = summary.variants[index].comparison.as_ref().unwrap();
        (comparison.p_value().unwrap(), comparison.adjusted_p.unwrap())
    };
    // The second smallest of three.
    let (single, adjusted) = p(1);
    assert!(single < 0.05 && adjusted > 0.05, "{single}, {adjusted}");
    assert!((adjusted - 2.0 * single).abs() < 1e-12);
    assert_eq!(summary.variants[1].verdict.kind, VerdictKind::Undecided);
    let (smallest, adjusted) = p(2);
    assert!((adjusted - 3.0 * smallest).abs() < 1e-12);
    assert_eq!(summary.variants[2].verdict.kind, VerdictKind::Better);
    let files = written(&sweep, &dir.path().join("report"), &page_only());
    assert!(files["sweep.md"].contains("Holm's over the 3 comparisons"), "{}", files["sweep.md"]);
}

#[test]
fn seeds_that_do_not_pair_are_left_out_with_a_note() {
    let dir = TempDir::new().unwrap();
    let root = two(5).write(dir.path());
    let keep = |left_out: &[&str]| {
        let cells = fs::read_to_string(root.join("cells.jsonl")).unwrap();
        let kept = cells.lines().filter(|line| !left_out.iter().any(|id| line.contains(id)));
        fs::write(root.join("cells.jsonl"), kept.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    };
    keep(&["plain-seed1", "good-seed5"]);
    // An outlier among the seeds without a counterpart does not matter.
    set_final(&root, "plain-seed5", 0.0);
    let summary = summarise(&load_sweep(&root).unwrap());
    let comparison = summary.variants[0].comparison.as_ref().unwrap();
    let design = Design::Paired { seeds: vec![2, 3, 4], unpaired: vec![1, 5] };
    assert_eq!(comparison.design, design);
    let own = &summary.variants[0].measures;
    let base = &summary.variants[1].measures;
    let reward = |of: &[(u64, leyden_report::sweep::Measures)], seed: u64| {
        of.iter().find(|(other, _)| *other == seed).unwrap().1.final_reward
    };
    let differences: Vec<f64> =
        (2..=4).map(|seed| reward(own, seed) - reward(base, seed)).collect();
    assert!((comparison.mean - mean(&differences)).abs() < 1e-12);
    let note = summary.notes.iter().find(|note| note.contains("without a counterpart: 1, 5"));
    assert!(note.is_some(), "{:?}", summary.notes);

    // Two pairs are too few, so the runs are independent.
    keep(&["good-seed2"]);
    let summary = summarise(&load_sweep(&root).unwrap());
    let design = Design::Independent { runs: 3, baseline: 4 };
    assert_eq!(summary.variants[0].comparison.as_ref().unwrap().design, design);
    assert!(summary.notes.iter().any(|note| note.contains("independent")), "{:?}", summary.notes);
}

#[test]
fn cells_that_have_not_ended_have_curves_but_are_excluded_from_the_statistics() {
    let dir = TempDir::new().unwrap();
    let root = two(5).write(dir.path());
    let folder = |id: &str| root.join("cells").join(id);
    // One stopped, one not started, one with damaged metrics.
    fs::remove_file(folder("good-seed1").join("finished")).unwrap();
    fs::remove_dir_all(folder("plain-seed3")).unwrap();
    let metrics = folder("plain-seed4").join("metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, whole.replacen("{\"kind\"", "{kind", 1)).unwrap();

    let sweep = load_sweep(&root).unwrap();
    let summary = summarise(&sweep);
    let seeds = |index: usize| -> Vec<u64> {
        summary.variants[index].measures.iter().map(|(seed, _)| *seed).collect()
    };
    assert_eq!((seeds(0), seeds(1)), (vec![2, 3, 4, 5], vec![1, 2, 5]));
    assert_eq!(sweep.variants[0].cells[0].state, State::Begun);
    let verdict = &summary.variants[0].verdict;
    assert!(verdict.preliminary, "{verdict:?}");
    let start = "preliminary, 2 of 10 cells have not ended: ";
    assert!(verdict.words.starts_with(start), "{}", verdict.words);
    let files = written(&sweep, &dir.path().join("report"), &page_only());
    assert!(files["sweep.md"].contains("plain-seed3: not begun"), "{}", files["sweep.md"]);
    let page = &files["index.html"];
    assert!(page.contains("plain-seed4 is excluded: "));
    assert!(page.contains(">preliminary: ") && page.contains("all verdicts are preliminary"));
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
    end_after(&root, "good-seed1", 20, "");
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
    fail(&root, "good-seed1", HOSTILE);
    let sweep = load_sweep(&root).unwrap();
    let out = dir.path().join("report");
    let files = written(&sweep, &out, &Options::default());
    for (name, text) in files.iter().filter(|(n, _)| n.ends_with("html") || n.ends_with("svg")) {
        assert!(!text.contains("<script") && !text.contains("<img"), "markup in {name}");
        assert!(!text.contains(['\u{202e}', '\u{0}']), "hidden letters in {name}");
    }
    assert!(files["index.html"].contains("&lt;script&gt;"));
}
