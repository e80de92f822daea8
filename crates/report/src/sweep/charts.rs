//! The charts of a sweep.

use super::comparison::Comparison;
use super::spending;
use super::summary::{Measured, Summary, VariantSummary, are_shares};
use crate::chart::{Chart, Ink, Level, Mark, Point, Scale};
use crate::experiment::RunGroup;
use crate::figures::{self, Figure, SEED_LINES, Section};
use crate::text::significant;

/// Number of points on the axis of a performance profile.
const PROFILE_POINTS: usize = 200;

/// With more variants than this, the lines of single seeds would hide the bands.
const MOST_WITH_SEEDS: usize = 4;

/// All charts: comparisons first, then curves, then training metrics. Charts of single variants
/// (by label, histograms, signals) and the paper's levels are in the runs' own reports only.
pub(super) fn figures(experiments: &[RunGroup<'_>], summary: &Summary) -> Vec<Figure> {
    let mut found = comparisons(summary, are_shares(experiments));
    let single = |figure: &Figure| {
        let own = ["reward_histogram", "signals"].iter().any(|own| figure.file.starts_with(own));
        own || figure.section == Section::Labels
    };
    for mut figure in figures::figures(experiments).into_iter().filter(|figure| !single(figure)) {
        figure.chart.levels.clear();
        if experiments.len() > MOST_WITH_SEEDS {
            figure.chart.series.retain(|series| series.name.is_some());
            figure.caption = figure.caption.replace(SEED_LINES, "Line: mean over seeds.");
        }
        found.push(figure);
    }
    found.retain(|figure| !figure.chart.is_empty());
    found
}

fn comparisons(summary: &Summary, shares: bool) -> Vec<Figure> {
    let reward = Scale::Linear { zero: false, ceiling: shares.then_some(1.0) };
    let mode = &summary.mode;
    let interval = "Mean over seeds with its 95 % interval (Student's t), failed and early-ended \
        cells included. Numbers as in the table.";
    let level = |label: &str, value: f64| Level { label: label.to_owned(), value };
    let mut difference = intervals(
        summary,
        "difference",
        "Difference from the baseline in final reward",
        "mean reward",
        Scale::Linear { zero: true, ceiling: None },
        |variant| variant.comparison.as_ref().map(Comparison::difference),
        "Mean difference with its 95 % interval, each for itself; the verdicts use adjusted p \
         values.",
    );
    difference.chart.levels.push(level("no difference", 0.0));
    let mut improvement = intervals(
        summary,
        "improvement",
        "Probability of ending above the baseline",
        "probability",
        Scale::Linear { zero: true, ceiling: Some(1.0) },
        |variant| variant.improvement,
        "That a run of the variant ends above a run of the baseline, with its 95 % bootstrap \
         interval. A description: the verdicts do not use it.",
    );
    improvement.chart.levels.push(level("no difference", 0.5));
    let mut found = vec![
        intervals(
            summary,
            "final_reward",
            &format!("Final test reward, {mode}"),
            "mean reward",
            reward,
            |variant| variant.final_reward,
            interval,
        ),
        difference,
        intervals(
            summary,
            "area",
            &format!("Area under the curve, {mode}"),
            "mean level of reward",
            reward,
            |variant| variant.area,
            interval,
        ),
        improvement,
        profile(summary),
    ];
    found.extend(spending::figures(summary, shares, size(summary)));
    found
}

/// One measure of every variant with its interval, numbered along the axis.
fn intervals(
    summary: &Summary,
    file: &str,
    title: &str,
    unit: &str,
    scale: Scale,
    figure: impl Fn(&VariantSummary) -> Option<Measured>,
    caption: &str,
) -> Figure {
    let mut chart = Chart::new(title, "variant", unit);
    chart.scale = scale;
    chart.size = size(summary);
    let mut names = Vec::new();
    for (index, variant) in summary.variants.iter().enumerate() {
        let x = (index + 1) as f64;
        names.push((x, (index + 1).to_string()));
        if let Some(Measured { value, interval }) = figure(variant) {
            let point = Point { x, y: value, interval };
            let name = format!("{} {}", index + 1, variant.name);
            chart.push(Some(&name), Ink::Series(index), Mark::MEASURED, vec![point]);
        }
    }
    chart.categories = Some(names);
    Figure {
        file: file.to_owned(),
        section: Section::Comparison,
        chart,
        caption: caption.to_owned(),
    }
}

/// Chart size with space for the names of many variants.
pub(super) fn size(summary: &Summary) -> (f64, f64) {
    let rows = summary.variants.len().div_ceil(3) as f64;
    (Chart::LARGE.0, 300.0 + 18.0 * rows)
}

/// Share of runs that end above each reward.
fn profile(summary: &Summary) -> Figure {
    let finals = || summary.variants.iter().flat_map(VariantSummary::finals);
    let (low, high) =
        (finals().fold(f64::INFINITY, f64::min), finals().fold(f64::NEG_INFINITY, f64::max));
    // Extend both ends slightly, to show where all runs and where no runs are above.
    let margin = 0.1 * (high - low).max(0.05);
    let at =
        |k: usize| low - margin + (high - low + 2.0 * margin) * k as f64 / PROFILE_POINTS as f64;
    let mut chart = Chart::new("Performance profile", "final test reward τ", "share of runs");
    chart.scale = Scale::Linear { zero: true, ceiling: Some(1.0) };
    chart.x_is_quantity = true;
    chart.size = size(summary);
    for (index, variant) in summary.variants.iter().enumerate() {
        let finals = variant.finals();
        if finals.is_empty() {
            continue;
        }
        let above = |tau: f64| finals.iter().filter(|score| **score > tau).count();
        let share = |tau: f64| above(tau) as f64 / finals.len() as f64;
        let points = (0..=PROFILE_POINTS).map(|k| Point::new(at(k), share(at(k)))).collect();
        let name = format!("{} {}", index + 1, variant.name);
        chart.push(Some(&name), Ink::Series(index), Mark::CURVE, points);
    }
    Figure {
        file: "profile".to_owned(),
        section: Section::Comparison,
        chart,
        caption: format!(
            "Share of runs whose final test reward is above τ, from {} to {}, failed and \
             early-ended ones included: a curve further right is better.",
            significant(low),
            significant(high)
        ),
    }
}
