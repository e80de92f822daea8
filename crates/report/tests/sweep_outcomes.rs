//! Cells that failed or ended early count in the statistics of a sweep, as its file says, and so
//! do tokens that are generated only for credit.

mod planned;
mod synthetic;

use std::fs;
use std::path::Path;

use leyden_report::Options;
use leyden_report::sweep::{Ending, Summary, VerdictKind, load_sweep, summarise};
use planned::{end_after, fail, page_only, rewrite, set_final, two, written};
use tempfile::TempDir;

fn summary(root: &Path) -> Summary {
    summarise(&load_sweep(root).unwrap())
}

fn setting(root: &Path, line: &str) {
    let path = root.join("sweep.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}{line}\n")).unwrap();
}

/// Both variants end at 0.8 or slightly above, but `good` collapses under two of five seeds. Its
/// other three runs alone would make it better.
#[test]
fn a_variant_that_collapses_is_judged_by_all_its_seeds() {
    let dir = TempDir::new().unwrap();
    let root = two(5).write(dir.path());
    for seed in 1..=5 {
        let end = 0.80 + 0.001 * seed as f64;
        set_final(&root, &format!("plain-seed{seed}"), end);
        set_final(&root, &format!("good-seed{seed}"), end + 0.05 + 0.001 * (seed % 3) as f64);
    }
    assert_eq!(summary(&root).variants[0].verdict.kind, VerdictKind::Better);

    for seed in [2, 4] {
        end_after(&root, &format!("good-seed{seed}"), 10, "step 11: the loss is NaN\n");
    }
    let summary = summary(&root);
    let good = &summary.variants[0];
    assert_eq!(good.verdict.kind, VerdictKind::Undecided, "{}", good.verdict.words);
    assert_eq!((good.planned, good.ended, good.collapsed), (5, 5, 2));
    assert!(!good.verdict.preliminary, "a failed cell has ended");
    // A failed cell counts with its last evaluation.
    let planned = two(5);
    let (_, failed) = &good.measures[1];
    let curve = planned.curve(0.9, 2);
    assert_eq!((failed.ending, failed.last_step), (Ending::Failed, Some(10)));
    assert_eq!(failed.final_reward, curve[1].1);
    // Ten measured steps, then twenty at the last evaluation.
    let area = (10.0 * (curve[0].1 + curve[1].1) / 2.0 + 20.0 * curve[1].1) / 30.0;
    assert!((failed.area - area).abs() < 1e-12);
    // It costs what it spent.
    assert_eq!(failed.cost.rollouts, 10.0 * 128.0);

    let sweep = load_sweep(&root).unwrap();
    let files = written(&sweep, &dir.path().join("report"), &page_only());
    let markdown = &files["sweep.md"];
    assert!(markdown.contains("| 1 | good | 5 of 5 | 2 of 5 |"), "{markdown}");
    assert!(markdown.contains("good-seed2: failed: step 11: the loss is NaN"), "{markdown}");
    for text in [markdown, &files["index.html"]] {
        assert!(text.contains("with its last evaluation, or with 0 if it has none"));
        assert!(text.contains("collapsed") && text.contains("5 of 5") && text.contains("2 of 5"));
    }
    let row = files["variants.csv"].lines().find(|row| row.starts_with("good,")).unwrap();
    assert!(row.starts_with("good,5,5,5,2,"), "{row}");
    let row = files["cells.csv"].lines().find(|row| row.starts_with("good-seed2,")).unwrap();
    assert!(row.contains(",failed: step 11: the loss is NaN,failed,10,"), "{row}");
}

#[test]
fn the_sweep_file_may_count_failures_as_zero() {
    let dir = TempDir::new().unwrap();
    let root = two(3).write(dir.path());
    end_after(&root, "good-seed2", 17, "out of memory\n");
    setting(&root, "failed = 'zero'");
    let sweep = load_sweep(&root).unwrap();
    let summary = summarise(&sweep);
    let (_, failed) = &summary.variants[0].measures[1];
    assert_eq!((failed.final_reward, failed.last_step), (0.0, Some(10)));
    // Ten measured steps, seven at the last evaluation, then zero: it failed after step 17.
    let curve = two(3).curve(0.9, 2);
    let area = (10.0 * (curve[0].1 + curve[1].1) / 2.0 + 7.0 * curve[1].1) / 30.0;
    assert!((failed.area - area).abs() < 1e-12);
    assert!(summary.protocol.contains("as reward 0 from the failure on"), "{}", summary.protocol);

    fs::write(root.join("sweep.toml"), "base = 'x.toml'\n[report]\nfailed = 'skip'\n").unwrap();
    let error = load_sweep(&root).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("`last` or `zero`"), "{error}");
}

#[test]
fn a_failed_cell_without_an_evaluation_counts_as_zero() {
    let dir = TempDir::new().unwrap();
    let root = two(3).write(dir.path());
    // One that wrote nothing, one that failed before its first evaluation.
    fs::remove_dir_all(root.join("cells/good-seed1")).unwrap();
    fail(&root, "good-seed1", "killed");
    rewrite(&root, "good-seed2", |_| None);
    fail(&root, "good-seed2", "the model cannot be loaded");
    let good = &summary(&root).variants[0];
    assert_eq!((good.measures.len(), good.collapsed), (3, 2));
    for (_, measures) in &good.measures[..2] {
        assert_eq!((measures.final_reward, measures.area), (0.0, 0.0));
        assert_eq!((measures.last_step, measures.cost.generated), (None, 0.0));
    }
    // All cells of the baseline failed: it still has a reward to compare with.
    for seed in 1..=3 {
        fs::remove_dir_all(root.join(format!("cells/plain-seed{seed}"))).unwrap();
        fail(&root, &format!("plain-seed{seed}"), "killed");
    }
    assert_eq!(summary(&root).variants[1].final_reward.unwrap().value, 0.0);
}

/// A failed cell that cannot be read is no result, but it is counted as collapsed.
#[test]
fn an_unreadable_failed_cell_is_named_and_counted() {
    let dir = TempDir::new().unwrap();
    let root = two(4).write(dir.path());
    fs::write(root.join("cells/good-seed1/metrics.jsonl"), "{broken}\n").unwrap();
    fail(&root, "good-seed1", "killed");
    let sweep = load_sweep(&root).unwrap();
    let good = &summarise(&sweep).variants[0];
    assert_eq!((good.measures.len(), good.ended, good.collapsed), (3, 4, 1));
    assert!(sweep.notes.iter().any(|note| note.starts_with("good-seed1 is excluded")));
}

#[test]
fn a_run_that_ends_early_keeps_its_last_evaluation() {
    let dir = TempDir::new().unwrap();
    let root = two(3).write(dir.path());
    end_after(&root, "good-seed3", 20, "");
    let config = root.join("cells/good-seed3/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let patient = text.replace("[train]\n", "[train]\npatience_without_variance = 8\n");
    fs::write(&config, &patient).unwrap();
    let early = summary(&root);
    let good = &early.variants[0];
    assert_eq!(good.collapsed, 1);
    let (_, measures) = &good.measures[2];
    let curve = two(3).curve(0.9, 3);
    assert_eq!((measures.ending, measures.last_step), (Ending::Early, Some(20)));
    assert_eq!(measures.final_reward, curve[2].1);
    let area = (5.0 * curve[0].1 + 10.0 * curve[1].1 + 15.0 * curve[2].1) / 30.0;
    assert!((measures.area - area).abs() < 1e-12);
    assert!(early.protocol.contains("they stop after 8 steps"), "{}", early.protocol);
    assert!(early.protocol.contains("to step 30"), "{}", early.protocol);

    // A run with fewer steps by configuration is complete; its curve is carried forward as well.
    fs::write(&config, text.replace("steps = 30", "steps = 20")).unwrap();
    let shorter = summary(&root);
    let (_, measures) = &shorter.variants[0].measures[2];
    assert_eq!((measures.ending, shorter.variants[0].collapsed), (Ending::Complete, 0));
    assert!((measures.area - area).abs() < 1e-12);
    assert!(!shorter.protocol.contains("Runs may end early"));
}

#[test]
fn completions_for_credit_are_part_of_the_cost() {
    let dir = TempDir::new().unwrap();
    let root = two(3).write(dir.path());
    let before = summary(&root).variants[0].cost.unwrap().generated;
    for seed in 1..=3 {
        rewrite(&root, &format!("good-seed{seed}"), |mut line| {
            if line["kind"] == "step" {
                line["extra"]["completion_tokens"] = 1000.0.into();
            }
            Some(line)
        });
    }
    let sweep = load_sweep(&root).unwrap();
    let after = summarise(&sweep).variants[0].cost.unwrap().generated;
    assert!((after - before - 30.0 * 1000.0).abs() < 1e-6, "{before}, {after}");
    // The last point of the curve is at the tokens of the table.
    let files = written(&sweep, &dir.path().join("report"), &Options::default());
    let place = format!("1 good, thousand tokens generated {}: ", (after.round()) / 1e3);
    assert!(files["reward_by_tokens.svg"].contains(&place), "{place}");
    let place = format!("1 good, seconds of training {}: ", (30.0f64 * 1520.0).round() / 1e3);
    assert!(files["reward_by_seconds.svg"].contains(&place), "{place}");
}

#[test]
fn a_collapsed_run_is_carried_forward_in_the_curves_by_cost() {
    let dir = TempDir::new().unwrap();
    let root = two(2).write(dir.path());
    end_after(&root, "plain-seed1", 10, "killed");
    end_after(&root, "plain-seed2", 20, "killed");
    fs::remove_file(root.join("cells/good-seed1/timings.jsonl")).unwrap();
    let sweep = load_sweep(&root).unwrap();
    let plain = summarise(&sweep).variants.remove(1);
    let files = written(&sweep, &dir.path().join("report"), &Options::default());
    // Both runs contribute to the last point: their mean tokens, their mean final reward.
    let tokens = plain.cost.unwrap().generated / 1e3;
    let reward = plain.final_reward.unwrap().value;
    let tip = |circle: &str| -> Option<(f64, f64)> {
        let rest = circle.split_once("2 plain, thousand tokens generated ")?.1;
        let (x, rest) = rest.split_once(": ")?;
        let y = rest.split([' ', '<']).next()?;
        Some((x.parse().ok()?, y.parse().ok()?))
    };
    let svg = &files["reward_by_tokens.svg"];
    let points: Vec<(f64, f64)> = svg.split("<circle").filter_map(tip).collect();
    let last = points.last().unwrap();
    assert!((last.0 - tokens).abs() < 1e-3 && (last.1 - reward).abs() < 1e-3, "{points:?}");
    // Seconds would be those of some runs only.
    assert!(!files.contains_key("reward_by_seconds.svg"));
}
