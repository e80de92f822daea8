//! Start and end rewards of every experiment, as rows, CSV and Markdown.

use std::fmt::Write;

use leyden_core::record::EvalRecord;

use crate::experiment::{RunGroup, label_of, reward_of};
use crate::interval::{Estimate, over_seeds, paired};
use crate::run::Run;

/// Test reward of one slice of the tasks, before training and at the last evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub experiment: String,
    /// The seed, or the number of seeds averaged.
    pub seed: String,
    /// True if the values are means over seeds and the intervals are over seeds, not items.
    pub averaged: bool,
    /// `sampled` or `greedy`.
    pub mode: String,
    /// `all`, or a label with its value.
    pub slice: String,
    pub tasks: usize,
    pub start_step: u64,
    pub start: Estimate,
    pub end_step: u64,
    pub end: Estimate,
    /// Difference on equal tasks; with an interval only if tasks can be paired.
    pub change: Option<Estimate>,
}

/// All rows: per experiment and mode the means over seeds, then each seed; within these all
/// tasks, then each label's values.
pub fn rows(experiments: &[RunGroup]) -> Vec<Row> {
    let mut rows = Vec::new();
    for experiment in experiments {
        let mut slices = vec![None];
        for (label, values) in experiment.labels() {
            slices.extend(values.into_iter().map(|value| Some((label.clone(), value))));
        }
        for mode in ["sampled", "greedy"] {
            let of_run = |run: &&Run| -> Vec<Option<Row>> {
                slices.iter().map(|slice| row(experiment, run, mode, slice.as_ref())).collect()
            };
            let by_run: Vec<Vec<Option<Row>>> = experiment.runs.iter().map(of_run).collect();
            for index in 0..slices.len() {
                let seeds: Option<Vec<&Row>> =
                    by_run.iter().map(|rows| rows[index].as_ref()).collect();
                let shares = experiment.rewards_are_shares();
                rows.extend(seeds.and_then(|seeds| averaged(&seeds, shares)));
            }
            rows.extend(by_run.into_iter().flatten().flatten());
        }
    }
    rows
}

fn row(
    experiment: &RunGroup,
    run: &Run,
    mode: &str,
    slice: Option<&(String, String)>,
) -> Option<Row> {
    let figure = |eval: &EvalRecord| match slice {
        None => reward_of(eval),
        Some((label, value)) => label_of(eval, label, value),
    };
    let known = || run.evals(mode).filter_map(|eval| Some((eval, figure(eval)?)));
    let (first, start) = known().next()?;
    let (last, end) = known().last()?;
    let change = match slice {
        _ if first.step == last.step => None,
        None => paired(&first.rewards, &last.rewards),
        Some(_) => Some(Estimate { mean: end.mean - start.mean, interval: None, n: end.n }),
    };
    Some(Row {
        experiment: experiment.name.clone(),
        seed: run.seed_label(),
        averaged: false,
        mode: mode.to_owned(),
        slice: slice.map_or("all".to_owned(), |(label, value)| {
            format!("{} = {}", label.replace('_', " "), value.replace('_', " "))
        }),
        tasks: if slice.is_some() { end.n } else { last.tasks },
        start_step: first.step,
        start,
        end_step: last.step,
        end,
        change,
    })
}

/// The mean over seeds; `None` for fewer than two seeds or if they are at different steps.
/// Intervals of `shares` are clipped to 0 and 1, because Student's t ignores these bounds.
fn averaged(seeds: &[&Row], shares: bool) -> Option<Row> {
    let [first, _, ..] = seeds else { return None };
    if seeds.iter().any(|row| (row.start_step, row.end_step) != (first.start_step, first.end_step))
    {
        return None;
    }
    let over = |figure: &dyn Fn(&Row) -> f64| {
        let values: Vec<f64> = seeds.iter().map(|row| figure(row)).collect();
        bounded(over_seeds(&values), 0.0, shares)
    };
    let changes: Option<Vec<f64>> =
        seeds.iter().map(|row| row.change.map(|change| change.mean)).collect();
    Some(Row {
        seed: format!("mean of {} seeds", seeds.len()),
        averaged: true,
        start: over(&|row| row.start.mean),
        end: over(&|row| row.end.mean),
        change: changes.map(|changes| bounded(over_seeds(&changes), -1.0, shares)),
        ..(*first).clone()
    })
}

/// Clips the interval of a share, or of a change of one, to the range `floor` to 1.
fn bounded(estimate: Estimate, floor: f64, shares: bool) -> Estimate {
    let inside = |(low, high): (f64, f64)| (low.max(floor), high.min(1.0));
    let interval = if shares { estimate.interval.map(inside) } else { estimate.interval };
    Estimate { interval, ..estimate }
}

/// `0.812 [0.760, 0.855]`.
pub(crate) fn words(estimate: &Estimate) -> String {
    match estimate.interval {
        Some((low, high)) => format!("{:.3} [{low:.3}, {high:.3}]", estimate.mean),
        None => format!("{:.3}", estimate.mean),
    }
}

/// Like [`words`], with an explicit sign.
pub(crate) fn change_words(change: Option<&Estimate>) -> String {
    match change {
        None => "–".to_owned(),
        Some(Estimate { mean, interval: None, .. }) => format!("{mean:+.3}"),
        Some(Estimate { mean, interval: Some((low, high)), .. }) => {
            format!("{mean:+.3} [{low:+.3}, {high:+.3}]")
        }
    }
}

/// The rows as CSV (RFC 4180) with a header line.
pub fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "experiment,seed,mode,slice,tasks,interval_over,start_step,start,start_low,start_high,\
         end_step,end,end_low,end_high,change,change_low,change_high\n",
    );
    for row in rows {
        let over = if row.averaged { "seeds" } else { "items" };
        let _ = writeln!(
            out,
            "{},{},{},{},{},{over},{},{},{},{},{}",
            field(&row.experiment),
            field(&row.seed),
            field(&row.mode),
            field(&row.slice),
            row.tasks,
            row.start_step,
            numbers(Some(&row.start)),
            row.end_step,
            numbers(Some(&row.end)),
            numbers(row.change.as_ref()),
        );
    }
    out
}

/// Mean, low, high; empty where unknown.
fn numbers(estimate: Option<&Estimate>) -> String {
    match estimate {
        None => ",,".to_owned(),
        Some(Estimate { mean, interval: None, .. }) => format!("{mean:.6},,"),
        Some(Estimate { mean, interval: Some((low, high)), .. }) => {
            format!("{mean:.6},{low:.6},{high:.6}")
        }
    }
}

/// One field, quoted if necessary.
pub(crate) fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The rows as a Markdown table with an explanation of the intervals.
pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "| experiment | seed | test mode | tasks | n | start | end | change |\n\
         |---|---|---|---|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} (step {}) | {} (step {}) | {} |",
            cell(&row.experiment),
            cell(&row.seed),
            cell(&row.mode),
            cell(&row.slice),
            row.tasks,
            words(&row.start),
            row.start_step,
            words(&row.end),
            row.end_step,
            change_words(row.change.as_ref()),
        );
    }
    let _ = writeln!(out, "\n{INTERVALS}");
    out
}

/// Explains the intervals of the table.
pub(crate) const INTERVALS: &str = "Mean test reward with 95 % intervals. One run: over test \
    items (Wilson where rewards are 0 or 1, bootstrap otherwise; the change is paired by task). \
    Mean of several seeds: over seeds (Student's t).";

/// Escapes text so that it cannot end its cell or become markup.
pub(crate) fn cell(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '|' | '\\' | '`' | '*' | '<' | '[' => out.extend(['\\', letter]),
            '\n' | '\r' => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_cells_cannot_break_out() {
        assert_eq!(field("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(field("plain = 2"), "plain = 2");
        assert_eq!(cell("a|b\n<i>"), "a\\|b \\<i>");
    }
}
