//! The tables of a sweep: Markdown for readers, CSV for programs.

use std::fmt::Write;

use leyden_sweep::State;

use super::comparison::{Comparison, DIFFERENCE_OF_INTEREST, Design};
use super::cost::Cost;
use super::load::{CellRun, SweepRuns};
use super::measure::Measures;
use super::summary::{Measured, Summary};
use super::words::{
    COST, arrival, collapsed_words, cost_words, difference_words, method_words, needed_words,
    p_cell, seeds_words, state_words, threshold_words, words,
};
use crate::table::{cell, field};

/// The report as Markdown.
pub(super) fn markdown(sweep: &SweepRuns, summary: &Summary) -> String {
    let mut out = format!("# {}\n\n", cell(&sweep.name));
    for variant in &summary.variants {
        let _ = writeln!(out, "- **{}**: {}.", cell(&variant.name), cell(&variant.verdict.words));
    }
    let _ = write!(
        out,
        "\n| | variant | seeds | collapsed | final reward | IQM | area under the curve | difference | p | adjusted p | above the baseline | seeds for {DIFFERENCE_OF_INTEREST} |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (index, variant) in summary.variants.iter().enumerate() {
        let comparison = variant.comparison.as_ref();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            index + 1,
            cell(&variant.name),
            seeds_words(variant),
            collapsed_words(variant),
            words(variant.final_reward),
            words(variant.final_iqm.map(Measured::bare)),
            words(variant.area),
            difference_words(comparison),
            p_cell(comparison.and_then(Comparison::p_value)),
            p_cell(comparison.and_then(|c| c.adjusted_p)),
            words(variant.improvement),
            needed_words(comparison),
        );
    }
    let _ = writeln!(out, "\n{}\n\n{}\n", method_words(summary), summary.protocol);
    if let Some(by_label) = &summary.by_label {
        let _ = writeln!(out, "{}", by_label.markdown().trim_start());
    }
    out.push_str(
        "| variant | steps to the reward | rollouts | tokens generated | tokens trained | with a gradient | seconds | evaluation |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for variant in &summary.variants {
        let costs = cost_words(variant.cost.as_ref());
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            cell(&variant.name),
            arrival(variant),
            costs.join(" | ")
        );
    }
    let _ = writeln!(
        out,
        "\nSteps (median over seeds, with how many arrived) to {}. {COST}",
        threshold_words(summary)
    );
    let cells = sweep.variants.iter().flat_map(|variant| &variant.cells);
    out + &unfinished("Cells", cells)
}

/// The list of cells that are not finished; empty if there are none.
pub(super) fn unfinished<'a>(what: &str, cells: impl Iterator<Item = &'a CellRun>) -> String {
    let open: Vec<String> = cells
        .filter(|run| run.state != State::Finished)
        .map(|run| format!("- {}: {}\n", cell(&run.cell.id), cell(&state_words(&run.state))))
        .collect();
    if open.is_empty() {
        return String::new();
    }
    format!("\n{what} that are not finished:\n\n{}", open.concat())
}

/// One line per variant.
pub(super) fn variants_csv(summary: &Summary) -> String {
    let mut out = String::from(
        "variant,seeds,planned,ended,collapsed,final,final_low,final_high,final_iqm,area,area_low,\
         area_high,difference,difference_low,difference_high,test,pairs,p,adjusted_p,\
         bound_low,bound_high,seeds_needed,improvement,improvement_low,improvement_high,verdict,\
         preliminary,threshold,reached,median_steps,rollouts,tokens_generated,tokens_trained,\
         tokens_with_gradient,seconds,evaluation_seconds\n",
    );
    for variant in &summary.variants {
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            field(&variant.name),
            variant.measures.len(),
            variant.planned,
            variant.ended,
            variant.collapsed,
            numbers(variant.final_reward),
            optional(variant.final_iqm),
            numbers(variant.area),
            comparison_csv(variant.comparison.as_ref()),
            numbers(variant.improvement),
            field(&variant.verdict.words),
            variant.verdict.preliminary,
            optional(summary.threshold),
            variant.reached(),
            optional(variant.median_steps()),
            costs_csv(variant.cost.as_ref()),
        );
    }
    out
}

/// Difference, its interval, the test, pairs, p, adjusted p, one-sided bounds, seeds needed.
fn comparison_csv(comparison: Option<&Comparison>) -> String {
    let test = comparison.and_then(|comparison| comparison.test.as_ref().ok());
    let (name, pairs) = match comparison.map(|comparison| &comparison.design) {
        Some(Design::Paired { seeds, .. }) => ("paired t", Some(seeds.len())),
        Some(Design::Independent { .. }) => ("Welch's t", None),
        None => ("", None),
    };
    let bounds = test.map(|test| test.bounds());
    [
        numbers(comparison.map(Comparison::difference)),
        if test.is_some() { name.to_owned() } else { String::new() },
        pairs.map_or_else(String::new, |pairs| pairs.to_string()),
        optional(comparison.and_then(Comparison::p_value)),
        optional(comparison.and_then(|comparison| comparison.adjusted_p)),
        optional(bounds.map(|bounds| bounds.low)),
        optional(bounds.map(|bounds| bounds.high)),
        comparison.and_then(|c| c.seeds_needed).map_or_else(String::new, |n| n.to_string()),
    ]
    .join(",")
}

/// One line per cell.
pub(super) fn cells_csv(sweep: &SweepRuns, summary: &Summary) -> String {
    let mut out = String::from(
        "cell,variant,seed,state,ending,last_step,final,area,steps_to_threshold,rollouts,\
         tokens_generated,tokens_trained,tokens_with_gradient,seconds,evaluation_seconds\n",
    );
    for (variant, summarised) in sweep.variants.iter().zip(&summary.variants) {
        for run in &variant.cells {
            let seed = run.cell.seed;
            let own: Option<&Measures> =
                summarised.measures.iter().find(|(of, _)| *of == seed).map(|(_, m)| m);
            let steps = own.zip(summary.threshold).and_then(|(m, level)| m.steps_to(level));
            let last_step = own.and_then(|measures| measures.last_step);
            let _ = writeln!(
                out,
                "{},{},{seed},{},{},{},{},{},{},{}",
                field(&run.cell.id),
                field(&variant.name),
                field(&state_words(&run.state)),
                own.map_or("", |measures| measures.ending.words()),
                last_step.map_or_else(String::new, |step| step.to_string()),
                optional(own.map(|m| m.final_reward)),
                optional(own.map(|m| m.area)),
                optional(steps),
                costs_csv(own.map(|m| &m.cost)),
            );
        }
    }
    out
}

fn numbers(measured: Option<Measured>) -> String {
    let interval = measured.and_then(|measured| measured.interval).unzip();
    [measured.map(|measured| measured.value), interval.0, interval.1].map(optional).join(",")
}

pub(super) fn optional(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string())
}

fn costs_csv(cost: Option<&Cost>) -> String {
    let figures = [
        cost.map(|c| c.rollouts),
        cost.map(|c| c.generated),
        cost.map(|c| c.trained),
        cost.map(|c| c.learned),
        cost.map(|c| c.seconds),
        cost.map(|c| c.evaluation_seconds),
    ];
    figures.map(optional).join(",")
}
