//! The charts of measured credit rules.

use leyden_stats::credit::{Agreement, RuleAgreement};

use super::measurement::CreditReport;
use super::tables::{FEWEST_CALLS, Part, labels, positions};
use crate::chart::{Chart, Ink, Level, Mark, Point, Scale};

/// Correlation by rule, by position and by label, as far as there is something to show.
pub(super) fn charts(report: &CreditReport<'_>) -> Vec<Chart> {
    let mut charts = vec![
        by_rule(report),
        by_part(report, "call", &positions(report), |rule, at| rule.by_position.get(at)),
        by_part(report, &report.measurement.label, &labels(report), |rule, label| {
            rule.by_label.get(label)
        }),
    ];
    charts.retain(|chart| !chart.is_empty());
    charts
}

/// The interval as a chart has it.
fn interval(part: &Agreement) -> Option<(f64, f64)> {
    part.corrected_interval.map(|own| (own.low, own.high))
}

fn chart(report: &CreditReport<'_>, title: &str, x: &str) -> Chart {
    let mut chart = Chart::new(title, x, "correlation without noise");
    chart.scale = Scale::Linear { zero: true, ceiling: None };
    // Space for the names of many rules.
    let rows = report.rules.len().div_ceil(3) as f64;
    chart.size = (Chart::LARGE.0, 300.0 + 18.0 * rows);
    chart
}

fn by_rule(report: &CreditReport<'_>) -> Chart {
    let mut chart = chart(report, "Correlation of credit with the true advantage", "rule");
    let mut names = Vec::new();
    for (place, row, rule) in report.measured() {
        let x = (place + 1) as f64;
        names.push((x, (place + 1).to_string()));
        if let Some(y) = rule.overall.corrected {
            let point = Point { x, y, interval: interval(&rule.overall) };
            let name = format!("{} {}", place + 1, row.name);
            chart.push(Some(&name), Ink::Series(place), Mark::MEASURED, vec![point]);
        }
    }
    chart.categories = Some(names);
    chart.levels.push(Level { label: "no relation".to_owned(), value: 0.0 });
    chart
}

/// Empty for fewer than two parts.
fn by_part<P: Part>(
    report: &CreditReport<'_>,
    what: &str,
    parts: &[P],
    of: impl for<'r> Fn(&'r RuleAgreement, &P) -> Option<&'r Agreement>,
) -> Chart {
    let mut chart = chart(report, &format!("Correlation by {what}"), what);
    if parts.len() < 2 {
        return chart;
    }
    let places = || parts.iter().zip(1..).map(|(part, x)| (part, f64::from(x)));
    chart.categories = Some(places().map(|(part, x)| (x, part.head())).collect());
    for (place, row, rule) in report.measured() {
        let value = |part: &P| {
            let found = of(rule, part).filter(|found| found.calls >= FEWEST_CALLS);
            found.and_then(|found| found.corrected).unwrap_or(f64::NAN)
        };
        let points: Vec<Point> = places().map(|(part, x)| Point::new(x, value(part))).collect();
        if points.iter().any(|point| point.y.is_finite()) {
            let name = format!("{} {}", place + 1, row.name);
            chart.push(Some(&name), Ink::Series(place), Mark::MEASURED, points);
        }
    }
    chart
}
