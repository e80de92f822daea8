//! Numbers and methods of a sweep's report in words.

use leyden_sweep::State;

use super::comparison::{Comparison, DIFFERENCE_OF_INTEREST, Design, POWER};
use super::cost::Cost;
use super::summary::{Measured, Summary, VariantSummary};

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

/// Like [`words`], with explicit signs.
pub(super) fn difference_words(comparison: Option<&Comparison>) -> String {
    match comparison.map(Comparison::difference) {
        None => "–".to_owned(),
        Some(Measured { value, interval: None }) => format!("{value:+.3}"),
        Some(Measured { value, interval: Some((low, high)) }) => {
            format!("{value:+.3} [{low:+.3}, {high:+.3}]")
        }
    }
}

/// `p = 0.031`.
pub(super) fn p_words(p: f64) -> String {
    match p_number(p) {
        number if number.starts_with('<') => format!("p {number}"),
        number => format!("p = {number}"),
    }
}

fn p_number(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

/// A p value for a table; a dash if there is none.
pub(super) fn p_cell(p: Option<f64>) -> String {
    p.map_or_else(|| "–".to_owned(), p_number)
}

/// `2 of 5`: the cells that failed or ended early, of those that ended.
pub(super) fn collapsed_words(variant: &VariantSummary) -> String {
    format!("{} of {}", variant.collapsed, variant.ended)
}

/// `4 of 5`: the cells in the statistics, of those planned.
pub(super) fn seeds_words(variant: &VariantSummary) -> String {
    format!("{} of {}", variant.measures.len(), variant.planned)
}

/// Seeds for the difference of interest.
pub(super) fn needed_words(comparison: Option<&Comparison>) -> String {
    match comparison {
        Some(Comparison { test: Ok(_), seeds_needed, .. }) => {
            seeds_needed.map_or_else(|| "over a million".to_owned(), |n| n.to_string())
        }
        _ => "–".to_owned(),
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
        None => "no reward to reach: no cell of the baseline has ended".to_owned(),
        Some(level) if summary.threshold_given => format!("test reward {level:.3}"),
        Some(level) => {
            format!("test reward {level:.3}, nine tenths of the baseline's mean final reward")
        }
    }
}

/// Describes the cost, for the text below its table.
pub(super) const COST: &str = "Cost of a run, mean over seeds: training alone, evaluations apart; \
    a collapsed run costs what it spent until it ended. Tokens generated are those of the responses \
    and of the completions that credit rules ask for.";

/// Describes the statistics, for the text below the table.
pub(super) fn method_words(summary: &Summary) -> String {
    let comparisons = || summary.variants.iter().filter_map(|v| v.comparison.as_ref());
    let paired = |comparison: &Comparison| matches!(comparison.design, Design::Paired { .. });
    let tested = || comparisons().filter(|comparison| comparison.test.is_ok());
    let (pairs, all) = (tested().filter(|c| paired(c)).count(), tested().count());
    let test = match (pairs, all) {
        (_, 0) => String::new(),
        (pairs, all) if pairs == all => {
            " The difference is the mean over pairs of runs of equal seed; p is that of Student's \
             paired t test."
                .to_owned()
        }
        (0, _) => format!(" The difference is that of the means; {WELCH}."),
        _ => format!(
            " The difference is the mean over pairs of runs of equal seed, and p that of Student's \
             paired t test; where seeds do not pair, it is that of the means, and {WELCH}."
        ),
    };
    let corrected = comparisons().filter(|c| c.adjusted_p.is_some()).count();
    let holm = match corrected {
        0 => String::new(),
        1 => " A claim needs p < 0.05.".to_owned(),
        many => format!(
            " Adjusted p is Holm's over the {many} comparisons; a claim needs an adjusted p < 0.05. \
             The intervals and the one-sided bounds of the verdicts are each at 95 %, not all \
             together."
        ),
    };
    let power = if all == 0 {
        String::new()
    } else {
        format!(
            " Seeds for {DIFFERENCE_OF_INTEREST}: how many seeds of each side would show a true \
             difference of {DIFFERENCE_OF_INTEREST} with probability {POWER}, at the measured \
             spread and p < 0.05 without correction."
        )
    };
    format!(
        "Test reward, {}. Means over seeds with 95 % intervals by Student's t; the area under the \
         curve divided by its steps.{test}{holm}{power} The interquartile mean (IQM) and the \
         probability that a run ends above one of the baseline, with its interval by the \
         bootstrap over seeds, describe the runs and are no part of the verdicts. All of this is \
         about other seeds, not about other tasks or models, and a collapse that is too rare for \
         these seeds to show is in no interval.",
        summary.mode
    )
}

const WELCH: &str = "p is that of Welch's t test, its standard error not below that of a common \
    variance";
