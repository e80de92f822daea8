//! The tables of measured credit rules.

use std::collections::BTreeSet;
use std::fmt::Write;

use leyden_stats::Interval;
use leyden_stats::credit::{Agreement, CorrelationDifference, Deviation, RuleAgreement};

use super::measurement::{CreditReport, Measurement, RuleRow};
use crate::table::{cell, field};
use crate::text::significant;

/// Fewest calls of a part (a position or a label) that is shown.
pub(super) const FEWEST_CALLS: usize = 10;
/// Largest number of parts in a table.
const MOST_PARTS: usize = 12;

const METHOD: &str = "\
Truth: the call's advantage, the change of the expected return by it, estimated by fresh completions \
from the states before and after the call. Correlation: Pearson's, of credit and estimated truth; \
without noise: corrected for the noise of that estimate, which can exceed 1 for few calls. Intervals: \
95 %, by the bootstrap over tasks. Difference: of the correlations without noise, on the same calls; \
its interval is paired, and each is for itself. Scale: the factor by which the credit fits the truth \
best, by least squares; a negative one means that the credit points the other way. Bias and variance: \
of credit less truth, without the noise of the truth, for the credit itself and for the scaled credit. \
Same sign: among the calls whose truth is at least 1.96 standard errors from 0. Credit is relative to \
its comparison group and not divided by a standard deviation; calls that a rule leaves out have \
credit 0.";

/// The report as Markdown.
pub(super) fn markdown(report: &CreditReport<'_>) -> String {
    let own = report.measurement;
    let mut out = format!("# {}\n\n{}\n\n", cell(&own.title), cell(&own.about));
    let base = report.baseline.as_deref().map_or_else(|| "–".to_owned(), cell);
    let _ = write!(
        out,
        "| | rule | correlation | without noise | difference from {base} | slope | scale \
         | bias | variance | scaled bias | scaled variance | same sign |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (place, row) in report.rules.iter().enumerate() {
        let _ = writeln!(out, "| {} | {} | {} |", place + 1, name(row), cells(row).join(" | "));
    }
    if let Some((_, _, first)) = report.measured().next() {
        let Agreement { calls, tasks, reliability, certain, .. } = &first.overall;
        let _ = writeln!(
            out,
            "\n{calls} calls of {tasks} tasks; {} of the estimated truth's variance is not noise; \
             {certain} calls have a certain sign. {METHOD}",
            reliability
                .map_or_else(|| "none".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        );
    }
    parts(&mut out, report, "call", &positions(report), |rule, at: &usize| {
        rule.by_position.get(at)
    });
    parts(&mut out, report, &own.label, &labels(report), |rule, label: &String| {
        rule.by_label.get(label)
    });
    out
}

fn name(row: &RuleRow) -> String {
    match &row.critic {
        Some(critic) => format!("{} (critic {})", cell(&row.name), cell(critic)),
        None => cell(&row.name),
    }
}

fn cells(row: &RuleRow) -> [String; 10] {
    let found = match &row.agreement {
        Ok(found) => found,
        Err(why) => {
            let mut cells: [String; 10] = std::array::from_fn(|_| "–".to_owned());
            cells[0] = cell(why);
            return cells;
        }
    };
    let all = &found.overall;
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), significant);
    let of = |deviation: Option<Deviation>, of: fn(&Deviation) -> f64| {
        number(deviation.as_ref().map(of))
    };
    [
        measured(all.correlation, all.correlation_interval),
        measured(all.corrected, all.corrected_interval),
        row.difference.as_ref().map_or_else(|| "–".to_owned(), difference),
        number(all.slope),
        number(found.scale),
        of(all.deviation, |d| d.bias),
        of(all.deviation, |d| d.variance),
        of(all.scaled, |d| d.bias),
        of(all.scaled, |d| d.variance),
        all.same_sign.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
    ]
}

/// `0.81 [0.76, 0.86]`; a dash if there is no value.
fn measured(value: Option<f64>, interval: Option<Interval>) -> String {
    match (value, interval) {
        (None, _) => "–".to_owned(),
        (Some(value), None) => format!("{value:.2}"),
        (Some(value), Some(Interval { low, high })) => format!("{value:.2} [{low:.2}, {high:.2}]"),
    }
}

/// `+0.12 [+0.05, +0.19]`.
fn difference(found: &CorrelationDifference) -> String {
    match found {
        CorrelationDifference { difference, interval: None } => format!("{difference:+.2}"),
        CorrelationDifference { difference, interval: Some(Interval { low, high }) } => {
            format!("{difference:+.2} [{low:+.2}, {high:+.2}]")
        }
    }
}

/// The positions with enough calls, ascending.
pub(super) fn positions(report: &CreditReport<'_>) -> Vec<usize> {
    let enough = |(_, part): &(&usize, &Agreement)| part.calls >= FEWEST_CALLS;
    let of = |rule: &RuleAgreement| {
        rule.by_position.iter().filter(enough).map(|(at, _)| *at).collect::<Vec<_>>()
    };
    let all: BTreeSet<usize> = report.measured().flat_map(|(_, _, rule)| of(rule)).collect();
    all.into_iter().take(MOST_PARTS).collect()
}

/// The values of the label with enough calls; those that begin with numbers in their order.
pub(super) fn labels(report: &CreditReport<'_>) -> Vec<String> {
    let enough = |(_, part): &(&String, &Agreement)| part.calls >= FEWEST_CALLS;
    let of = |rule: &RuleAgreement| {
        rule.by_label.iter().filter(enough).map(|(value, _)| value.clone()).collect::<Vec<_>>()
    };
    let all: BTreeSet<String> = report.measured().flat_map(|(_, _, rule)| of(rule)).collect();
    let mut all: Vec<String> = all.into_iter().collect();
    let leading = |value: &String| {
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap_or(u64::MAX)
    };
    all.sort_by_key(|value| (leading(value), value.clone()));
    all.truncate(MOST_PARTS);
    all
}

/// Positions and values of labels as heads of columns.
pub(super) trait Part {
    fn head(&self) -> String;
}

impl Part for usize {
    /// Calls are counted from 1 for readers.
    fn head(&self) -> String {
        (self + 1).to_string()
    }
}

impl Part for String {
    fn head(&self) -> String {
        self.clone()
    }
}

/// Tables of the agreement by part; none for fewer than two parts.
fn parts<P: Part>(
    out: &mut String,
    report: &CreditReport<'_>,
    what: &str,
    parts: &[P],
    of: impl for<'r> Fn(&'r RuleAgreement, &P) -> Option<&'r Agreement>,
) {
    if parts.len() < 2 {
        return;
    }
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), significant);
    type Figure<'a> = (&'a str, &'a dyn Fn(&Agreement) -> String);
    let figures: [Figure<'_>; 3] = [
        ("Correlation without noise", &|part| measured(part.corrected, None)),
        ("Scaled bias", &|part| number(part.scaled.map(|d| d.bias))),
        ("Scaled variance", &|part| number(part.scaled.map(|d| d.variance))),
    ];
    for (title, figure) in figures {
        let heads: Vec<String> = parts.iter().map(|part| cell(&part.head())).collect();
        let _ = writeln!(
            out,
            "\n{title} by {}:\n\n| rule | {} |\n|---|{}",
            cell(what),
            heads.join(" | "),
            "---:|".repeat(parts.len())
        );
        for (_, row, rule) in report.measured() {
            let shown = |part: &P| {
                let found = of(rule, part).filter(|found| found.calls >= FEWEST_CALLS);
                found.map_or_else(|| "–".to_owned(), figure)
            };
            let cells: Vec<String> = parts.iter().map(shown).collect();
            let _ = writeln!(out, "| {} | {} |", name(row), cells.join(" | "));
        }
    }
}

/// One line per rule and call (RFC 4180), with a header line.
pub(super) fn csv(measurement: &Measurement) -> String {
    let mut out = String::from(
        "rule,task,task_id,rollout,call,calls,role,label,reward,truth,truth_variance,credit\n",
    );
    for rule in &measurement.rules {
        let Ok(credit) = &rule.credit else { continue };
        for (call, credit) in measurement.calls.iter().zip(credit) {
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{},{},{},{},{},{}",
                field(&rule.name),
                call.task,
                field(&call.task_id),
                call.rollout,
                call.position,
                call.calls,
                field(&call.role),
                field(&call.label),
                call.reward,
                call.truth,
                call.noise,
                credit,
            );
        }
    }
    out
}
