//! Summary tables of an evaluation: rewards with intervals, by label, and counts of failures.

use std::collections::{BTreeMap, BTreeSet};

use leyden_core::record::EvalDepth;
use leyden_core::{Outcome, Rollout, SeedTree, Task};
use leyden_stats::{Interval, bootstrap_interval, mean, wilson_interval};

use super::failure::{FAILURES, Failure};
use crate::benchmark::Benchmark;
use crate::table::{Side, aligned};

/// Maximum number of values of a label; labels with more are omitted.
const LISTED: usize = 12;
const RESAMPLES: usize = 2000;

/// Results of one mode of an evaluation.
pub struct Summary {
    mode: &'static str,
    all: Vec<f64>,
    /// Rewards by label and value.
    slices: BTreeMap<(String, String), Vec<f64>>,
    failures: BTreeMap<Failure, usize>,
    rollouts: usize,
    calls: usize,
    tokens: usize,
    first_missing: Option<String>,
    /// With several samples per task.
    depth: Option<EvalDepth>,
}

impl Summary {
    pub fn of(
        benchmark: &dyn Benchmark,
        mode: &'static str,
        tasks: &[Task],
        rollouts: &[Rollout],
    ) -> Self {
        let mut summary = Self {
            mode,
            all: Vec::new(),
            slices: BTreeMap::new(),
            failures: BTreeMap::new(),
            depth: None,
            rollouts: rollouts.len(),
            calls: rollouts.iter().map(|rollout| rollout.calls.len()).sum(),
            tokens: rollouts.iter().map(Rollout::response_tokens).sum(),
            first_missing: None,
        };
        let samples = (rollouts.len() / tasks.len().max(1)).max(1);
        for (task, rollouts) in tasks.iter().zip(rollouts.chunks(samples)) {
            let mut rewards = Vec::new();
            for rollout in rollouts {
                if let Some(failure) = Failure::of(benchmark, rollout) {
                    *summary.failures.entry(failure).or_default() += 1;
                }
                match &rollout.outcome {
                    Outcome::Reward(reward) => rewards.push(*reward),
                    Outcome::Missing(why) => {
                        summary.first_missing.get_or_insert_with(|| format!("{}: {why}", task.id));
                    }
                }
            }
            // A task counts once, with the mean over its samples.
            let Some(reward) = mean(&rewards) else { continue };
            summary.all.push(reward);
            for label in &task.labels {
                summary.slices.entry(label.clone()).or_default().push(reward);
            }
        }
        summary
    }

    /// The same with what several samples per task show.
    #[must_use]
    pub fn with_depth(self, depth: Option<EvalDepth>) -> Self {
        Self { depth, ..self }
    }

    /// If no rollout has a reward: the reason of the first.
    pub fn nothing_scored(&self) -> Option<&str> {
        if self.all.is_empty() { self.first_missing.as_deref() } else { None }
    }
}

/// The tables of all modes of an evaluation, side by side.
pub fn table(summaries: &[Summary]) -> String {
    format!("{}\n{}", rewards(summaries), failures(summaries))
}

fn rewards(summaries: &[Summary]) -> String {
    let mut head = vec!["reward (95 % interval)".to_owned(), "tasks".to_owned()];
    head.extend(summaries.iter().map(|summary| summary.mode.to_owned()));
    let mut rows = vec![head];
    let mut row = |name: String, of: &dyn Fn(&Summary) -> Vec<f64>| {
        let values: Vec<Vec<f64>> = summaries.iter().map(of).collect();
        let count = values.iter().map(Vec::len).max().unwrap_or(0);
        let cells = values.iter().map(|values| estimate(values));
        rows.push([name, count.to_string()].into_iter().chain(cells).collect());
    };
    row("all".to_owned(), &|summary| summary.all.clone());
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (label, value) in summaries.iter().flat_map(|summary| summary.slices.keys()) {
        let known = values.entry(label).or_default();
        if !known.contains(&value.as_str()) {
            known.push(value);
        }
    }
    for (label, mut values) in values {
        if values.len() < 2 || values.len() > LISTED {
            continue;
        }
        values.sort_unstable();
        for value in values {
            let key = (label.to_owned(), value.to_owned());
            let of = |summary: &Summary| summary.slices.get(&key).cloned().unwrap_or_default();
            row(format!("{label} {value}"), &of);
        }
    }
    aligned(&rows, &[Side::Left, Side::Right])
}

/// `0.163 [0.125, 0.209]`.
pub fn estimate(rewards: &[f64]) -> String {
    match (mean(rewards), interval(rewards)) {
        (Some(mean), Some(interval)) => {
            format!("{mean:.3} [{:.3}, {:.3}]", interval.low, interval.high)
        }
        _ => "–".to_owned(),
    }
}

/// The Wilson interval if all rewards are 0 or 1, else a bootstrap interval.
pub fn interval(rewards: &[f64]) -> Option<Interval> {
    if rewards.iter().all(|&reward| reward == 0.0 || reward == 1.0) {
        let right = rewards.iter().filter(|&&reward| reward == 1.0).count();
        return wilson_interval(right, rewards.len());
    }
    bootstrap_interval(rewards, RESAMPLES, SeedTree::new(0).child("eval"))
}

fn failures(summaries: &[Summary]) -> String {
    let mut rows = vec![
        ["rollouts".to_owned()]
            .into_iter()
            .chain(summaries.iter().map(|summary| summary.mode.to_owned()))
            .collect(),
    ];
    let mut row = |name: &str, of: &dyn Fn(&Summary) -> String| {
        let cells = summaries.iter().map(of);
        rows.push([name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>());
    };
    let right = |summary: &Summary| summary.rollouts - summary.failures.values().sum::<usize>();
    row("right", &|summary| right(summary).to_string());
    for failure in FAILURES {
        let count = |summary: &Summary| summary.failures.get(&failure).copied().unwrap_or(0);
        if summaries.iter().any(|summary| count(summary) > 0) {
            row(failure.name(), &|summary| count(summary).to_string());
        }
    }
    let share = |part: usize, whole: usize| format!("{:.1}", part as f64 / whole.max(1) as f64);
    row("calls per rollout", &|summary| share(summary.calls, summary.rollouts));
    row("tokens per response", &|summary| share(summary.tokens, summary.calls));
    let depths = || summaries.iter().filter_map(|summary| summary.depth.as_ref());
    let depth_row = |of: &dyn Fn(&EvalDepth) -> Option<f64>| -> Vec<String> {
        let of = |s: &Summary| s.depth.as_ref().and_then(of);
        summaries.iter().map(|s| of(s).map_or("–".to_owned(), |x| format!("{x:.3}"))).collect()
    };
    let ks: BTreeSet<usize> = depths().flat_map(|depth| depth.pass_at.keys().copied()).collect();
    for k in ks {
        let cells = depth_row(&|depth| depth.pass_at.get(&k).copied());
        rows.push([vec![format!("pass@{k}")], cells].concat());
    }
    if let Some(samples) = depths().map(|depth| depth.samples).max() {
        for (name, of) in [
            (format!("majority@{samples}"), (|d| d.majority) as fn(&EvalDepth) -> Option<f64>),
            ("standard error".to_owned(), |d| d.error),
            ("  of other samples".to_owned(), |d| d.error_sampling),
            ("  of other tasks".to_owned(), |d| d.error_items),
        ] {
            rows.push([vec![name], depth_row(&|depth| of(depth))].concat());
        }
    }
    let mut text = aligned(&rows, &[Side::Left, Side::Right, Side::Right]);
    for summary in summaries {
        if let Some(why) = &summary.first_missing {
            text.push_str(&format!("first without reward ({}): {why}\n", summary.mode));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calc::Calc;
    use crate::evaluation::failure::tests::rollout;

    fn task(operations: &str) -> Task {
        Task {
            id: "t".to_owned(),
            question: "q".to_owned(),
            gold: "1".to_owned(),
            labels: vec![("operations".to_owned(), operations.to_owned())],
            fields: serde_json::Map::new(),
        }
    }

    #[test]
    fn tables_show_shares_by_label_and_counts_of_failures() {
        let answer = Some("### ANSWER: 2 ###");
        let tasks = ["1", "1", "2", "2"].map(task);
        let mut rollouts = [1.0, 0.0, 0.0, 0.0].map(|reward| rollout(reward, answer, &[])).to_vec();
        rollouts[3].outcome = Outcome::Missing("the prompt is too long".to_owned());
        let summary = Summary::of(&Calc, "greedy", &tasks, &rollouts);
        assert_eq!(summary.nothing_scored(), None);
        let text = table(&[summary]);
        for line in [
            "all                         3  0.333 [0.061, 0.792]\n",
            "operations 1                2  0.500 [0.095, 0.905]\n",
            "operations 2                1  0.000 [0.000, 0.793]\n",
            "right                     1\n",
            "wrong answer              2\n",
            "no reward                 1\n",
            "tokens per response     2.0\n",
            "first without reward (greedy): t: the prompt is too long\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let none = Summary::of(&Calc, "greedy", &tasks[..1], &rollouts[3..]);
        assert_eq!(none.nothing_scored(), Some("t: the prompt is too long"));
    }

    #[test]
    fn rewards_between_0_and_1_have_a_bootstrap() {
        let rewards: Vec<f64> = (0..40).map(|i| f64::from(i % 4) / 3.0).collect();
        let interval = interval(&rewards).unwrap();
        assert!(interval.contains(0.5) && interval.high - interval.low < 0.3);
        assert_eq!(estimate(&[]), "–");
    }
}
