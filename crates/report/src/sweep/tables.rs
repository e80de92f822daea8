//! The tables of a sweep: Markdown for readers, CSV for programs.

use std::fmt::Write;

use leyden_sweep::State;

use super::load::SweepRuns;
use super::measure::{Cost, Measures};
use super::summary::{Measured, Summary, VariantSummary};
use crate::table::{cell, field};

/// `0.812 [0.760, 0.855]`; a dash if there is no value.
pub(super) fn words(measured: Option<Measured>) -> String {
    match measured {
        None => "–".to_owned(),
        Some(Measured { value, interval: None }) => format!("{value:.3}"),
        Some(Measured { value, interval: Some((low, high)) }) => {
            format!("{value:.3} [{low:.3}, {high:.3}]")
        }
    }
}

/// When the runs of a variant reached the threshold.
pub(super) fn arrival(variant: &VariantSummary) -> String {
    let (reached, runs) = (variant.reached(), variant.steps_to.len());
    match variant.median_steps() {
        _ if runs == 0 => "–".to_owned(),
        Some(median) => format!("{median} ({reached} of {runs})"),
        None => format!("not by half ({reached} of {runs})"),
    }
}

/// A number of tokens, rollouts or seconds in short form.
pub(super) fn amount(value: f64) -> String {
    if !value.is_finite() {
        "–".to_owned()
    } else if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

/// State of a cell, in words.
pub(super) fn state_words(state: &State) -> String {
    match state {
        State::Waiting => "not begun".to_owned(),
        State::Begun => "begun, not finished".to_owned(),
        State::Running(by) => format!("running: {by}"),
        State::Finished => "finished".to_owned(),
        State::Failed(why) => format!("failed: {why}"),
    }
}

/// Describes the threshold, for captions.
pub(super) fn threshold_words(summary: &Summary) -> String {
    match summary.threshold {
        None => "no reward to reach: the baseline has no finished run".to_owned(),
        Some(level) if summary.threshold_given => format!("test reward {level:.3}"),
        Some(level) => format!(
            "test reward {level:.3}, nine tenths of the baseline's final interquartile mean"
        ),
    }
}

/// Describes the statistics, for the text below the table.
pub(super) fn method_words(summary: &Summary) -> String {
    let compared = summary.variants.iter().filter(|v| v.difference.is_some()).count();
    let many = if compared > 1 {
        format!(
            " The {compared} comparisons are each at 95 %, not all together: of 20 variants that \
             make no difference one is expected to seem to."
        )
    } else {
        String::new()
    };
    format!(
        "Test reward, {}. Interquartile means over seeds, the area under the curve divided by \
         its steps; 95 % intervals by the bootstrap over seeds (all test tasks are one \
         stratum): they speak of other seeds, not of other tasks or models. A claim needs both \
         intervals on one side and enough seeds that complete separation by chance is rarer \
         than one in twenty.{many}",
        summary.mode
    )
}

/// The report as Markdown.
pub(super) fn markdown(sweep: &SweepRuns, summary: &Summary) -> String {
    let mut out = format!("# {}\n\n", cell(&sweep.name));
    for variant in &summary.variants {
        let _ = writeln!(out, "- **{}**: {}.", cell(&variant.name), cell(&variant.verdict.words));
    }
    out.push_str(
        "\n| | variant | seeds | final reward | area under the curve | above the baseline | difference |\n\
         |---:|---|---:|---:|---:|---:|---:|\n",
    );
    for (index, variant) in summary.variants.iter().enumerate() {
        let _ = writeln!(
            out,
            "| {} | {} | {} of {} | {} | {} | {} | {} |",
            index + 1,
            cell(&variant.name),
            variant.measures.len(),
            variant.planned,
            words(variant.final_reward),
            words(variant.area),
            words(variant.improvement),
            words(variant.difference),
        );
    }
    let _ = writeln!(out, "\n{}\n", method_words(summary));
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
        "\nSteps (median over seeds, with how many arrived) to {}. Cost of a run, mean over \
         seeds: training alone, evaluations apart.",
        threshold_words(summary)
    );
    let open: Vec<String> = sweep
        .variants
        .iter()
        .flat_map(|variant| &variant.cells)
        .filter(|run| run.state != State::Finished)
        .map(|run| format!("- {}: {}\n", cell(&run.cell.id), cell(&state_words(&run.state))))
        .collect();
    if !open.is_empty() {
        let _ = write!(out, "\nCells that are not finished:\n\n{}", open.concat());
    }
    out
}

pub(super) fn cost_words(cost: Option<&Cost>) -> [String; 6] {
    match cost {
        None => std::array::from_fn(|_| "–".to_owned()),
        Some(cost) => [
            cost.rollouts,
            cost.generated,
            cost.trained,
            cost.learned,
            cost.seconds,
            cost.evaluation_seconds,
        ]
        .map(amount),
    }
}

/// One line per variant.
pub(super) fn variants_csv(summary: &Summary) -> String {
    let mut out = String::from(
        "variant,seeds,planned,final,final_low,final_high,area,area_low,area_high,improvement,\
         improvement_low,improvement_high,difference,difference_low,difference_high,verdict,\
         threshold,reached,median_steps,rollouts,tokens_generated,tokens_trained,\
         tokens_with_gradient,seconds,evaluation_seconds\n",
    );
    for variant in &summary.variants {
        let measured =
            [variant.final_reward, variant.area, variant.improvement, variant.difference]
                .map(numbers);
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{}",
            field(&variant.name),
            variant.measures.len(),
            variant.planned,
            measured.join(","),
            field(&variant.verdict.words),
            optional(summary.threshold),
            variant.reached(),
            optional(variant.median_steps()),
            costs_csv(variant.cost.as_ref()),
        );
    }
    out
}

/// One line per cell.
pub(super) fn cells_csv(sweep: &SweepRuns, summary: &Summary) -> String {
    let mut out = String::from(
        "cell,variant,seed,state,last_step,final,area,steps_to_threshold,rollouts,\
         tokens_generated,tokens_trained,tokens_with_gradient,seconds,evaluation_seconds\n",
    );
    for (variant, summarised) in sweep.variants.iter().zip(&summary.variants) {
        for run in &variant.cells {
            let seed = run.cell.seed;
            let own: Option<&Measures> =
                summarised.measures.iter().find(|(of, _)| *of == seed).map(|(_, m)| m);
            let steps = own.zip(summary.threshold).and_then(|(m, level)| m.steps_to(level));
            let _ = writeln!(
                out,
                "{},{},{seed},{},{},{},{},{},{}",
                field(&run.cell.id),
                field(&variant.name),
                field(&state_words(&run.state)),
                own.map_or_else(String::new, |m| m.last_step.to_string()),
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

fn optional(value: Option<f64>) -> String {
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
