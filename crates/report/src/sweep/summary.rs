//! The statistics and the verdict of every variant.

use std::collections::BTreeSet;

use leyden_core::SeedTree;
use leyden_stats::{Interval, Scores, difference_interval, probability_of_improvement};

use super::load::{SweepRuns, VariantRuns};
use super::measure::{Cost, Measures};
use super::verdict::{Verdict, VerdictKind, verdict};
use crate::experiment::RunGroup;

/// Resamples of each bootstrap: the bounds of an interval are then accurate to about 1 % of its
/// width, and a sweep of 15 variants takes well below a second.
const RESAMPLES: usize = 5000;

/// Default threshold, as a share of the baseline's final reward.
const DEFAULT_SHARE: f64 = 0.9;

/// A value with its 95 % interval, if one can be computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub value: f64,
    pub interval: Option<(f64, f64)>,
}

/// The statistics of a sweep.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The evaluation mode of all measures.
    pub mode: String,
    /// The reward for the steps-to-threshold measure; `None` if the baseline has no finished run.
    pub threshold: Option<f64>,
    /// Whether the threshold was given; otherwise it is a share of the baseline's final reward.
    pub threshold_given: bool,
    pub variants: Vec<VariantSummary>,
    pub notes: Vec<String>,
}

/// The statistics of one variant over its finished runs.
#[derive(Debug, Clone)]
pub struct VariantSummary {
    pub name: String,
    /// Number of cells of the variant.
    pub planned: usize,
    /// By seed, in the order of the cells; finished runs only.
    pub measures: Vec<(u64, Measures)>,
    /// Interquartile mean over runs.
    pub final_reward: Option<Measured>,
    /// Likewise, of the area under the curve.
    pub area: Option<Measured>,
    /// Probability that a run ends above one of the baseline; without an interval if the runs are
    /// completely separated.
    pub improvement: Option<Measured>,
    /// Interquartile mean of the final reward minus that of the baseline.
    pub difference: Option<Measured>,
    pub verdict: Verdict,
    /// Per run: the step at which it reached the threshold.
    pub steps_to: Vec<Option<f64>>,
    /// Mean over runs.
    pub cost: Option<Cost>,
}

impl VariantSummary {
    /// The final rewards of the finished runs.
    pub fn finals(&self) -> Vec<f64> {
        self.measures.iter().map(|(_, measures)| measures.final_reward).collect()
    }

    /// Number of runs that reached the threshold.
    pub fn reached(&self) -> usize {
        self.steps_to.iter().flatten().count()
    }

    /// Median over all runs of the steps to the threshold, counting runs that never reached it as
    /// infinite; `None` if the median is infinite.
    pub fn median_steps(&self) -> Option<f64> {
        let never = |steps: &Option<f64>| steps.unwrap_or(f64::INFINITY);
        let mut steps: Vec<f64> = self.steps_to.iter().map(never).collect();
        steps.sort_by(f64::total_cmp);
        let last = steps.len().checked_sub(1)?;
        let median = (steps[last / 2] + steps[last.div_ceil(2)]) / 2.0;
        median.is_finite().then_some(median)
    }
}

/// The statistics of a sweep.
pub fn summarise(sweep: &SweepRuns) -> Summary {
    let mode = mode(sweep);
    let mut notes = Vec::new();
    let measured: Vec<Vec<(u64, Measures)>> =
        sweep.variants.iter().map(|variant| measures(variant, &mode, &mut notes)).collect();
    notes.extend(lengths_note(&measured));
    let base = sweep.variants.iter().position(|variant| variant.name == sweep.baseline);
    let base_scores = base.and_then(|index| scores(&measured[index], |m| m.final_reward));
    let given = sweep.settings.threshold;
    let threshold = given.or_else(|| base_scores.as_ref().map(|s| DEFAULT_SHARE * s.iqm()));
    let variants = sweep
        .variants
        .iter()
        .zip(measured)
        .enumerate()
        .map(|(index, (variant, measures))| {
            let seeds = SeedTree::new(0).child("report").child("sweep").index(index as u64);
            let mut summary = of_variant(variant, measures, threshold, seeds);
            if base == Some(index) {
                let words = "the baseline".to_owned();
                summary.verdict = Verdict { kind: VerdictKind::Baseline, words };
            } else {
                compare(&mut summary, base_scores.as_ref(), seeds);
            }
            summary
        })
        .collect();
    let threshold_given = given.is_some();
    Summary { mode, threshold, threshold_given, variants, notes }
}

/// The configured mode, or `sampled` if runs have it, else `greedy`.
fn mode(sweep: &SweepRuns) -> String {
    let runs = || sweep.variants.iter().flat_map(|v| &v.cells).filter_map(|c| c.run.as_ref());
    let sampled = runs().any(|run| run.evals("sampled").next().is_some());
    let usual = if sampled { "sampled" } else { "greedy" };
    sweep.settings.mode.clone().unwrap_or_else(|| usual.to_owned())
}

fn measures(variant: &VariantRuns, mode: &str, notes: &mut Vec<String>) -> Vec<(u64, Measures)> {
    let mut found = Vec::new();
    for cell in &variant.cells {
        let finished = cell.state == leyden_sweep::State::Finished;
        let Some(run) = cell.run.as_ref().filter(|_| finished) else { continue };
        match Measures::of(run, mode) {
            Some(measures) => found.push((cell.cell.seed, measures)),
            None => notes.push(format!(
                "{} is finished but has no {mode} evaluation with a reward: it is excluded from \
                the statistics.",
                cell.cell.id
            )),
        }
    }
    found
}

/// A note if final rewards are from different numbers of steps.
fn lengths_note(measured: &[Vec<(u64, Measures)>]) -> Option<String> {
    let steps: BTreeSet<u64> = measured.iter().flatten().map(|(_, m)| m.last_step).collect();
    (steps.len() > 1).then(|| {
        let list: Vec<String> = steps.iter().map(u64::to_string).collect();
        format!("The last evaluations are at different steps: {}.", list.join(", "))
    })
}

/// One measure of every run; all test tasks are one stratum. `None` without a run.
fn scores(measures: &[(u64, Measures)], figure: impl Fn(&Measures) -> f64) -> Option<Scores> {
    Scores::of_tasks(vec![measures.iter().map(|(_, m)| figure(m)).collect()]).ok()
}

fn of_variant(
    variant: &VariantRuns,
    measures: Vec<(u64, Measures)>,
    threshold: Option<f64>,
    seeds: SeedTree,
) -> VariantSummary {
    let iqm = |figure: fn(&Measures) -> f64, name: &str| {
        let scores = scores(&measures, figure)?;
        // The bootstrap interval of one run has no width and no meaning.
        let interval = (measures.len() > 1)
            .then(|| scores.interval(Scores::iqm, RESAMPLES, seeds.child(name)))
            .flatten();
        Some(Measured { value: scores.iqm(), interval: interval.map(ends) })
    };
    let costs: Vec<Cost> = measures.iter().map(|(_, m)| m.cost).collect();
    VariantSummary {
        name: variant.name.clone(),
        planned: variant.cells.len(),
        final_reward: iqm(|m| m.final_reward, "final"),
        area: iqm(|m| m.area, "area"),
        improvement: None,
        difference: None,
        verdict: Verdict {
            kind: VerdictKind::Nothing,
            words: "no verdict: no finished run".to_owned(),
        },
        steps_to: match threshold {
            Some(threshold) => measures.iter().map(|(_, m)| m.steps_to(threshold)).collect(),
            None => Vec::new(),
        },
        cost: Cost::mean(&costs),
        measures,
    }
}

fn ends(interval: Interval) -> (f64, f64) {
    (interval.low, interval.high)
}

/// Compares a variant with the baseline.
fn compare(summary: &mut VariantSummary, base: Option<&Scores>, seeds: SeedTree) {
    let Some(own) = scores(&summary.measures, |m| m.final_reward) else { return };
    let Some(base) = base else {
        summary.verdict.words = "no verdict: the baseline has no finished run".to_owned();
        return;
    };
    let Ok((value, interval)) =
        probability_of_improvement(&own, base, RESAMPLES, seeds.child("improvement"))
    else {
        return;
    };
    let (n, m) = (own.tasks()[0].len(), base.tasks()[0].len());
    let wide = |interval: Option<Interval>| interval.filter(|_| n > 1 && m > 1).map(ends);
    // For complete separation the bootstrap interval has no width, which is not certainty.
    let separated = value == 0.0 || value == 1.0;
    let interval = interval.filter(|_| !separated);
    let improvement = Measured { value, interval: wide(interval) };
    let interval =
        difference_interval(&own, base, Scores::iqm, RESAMPLES, seeds.child("difference"));
    let difference = Measured { value: own.iqm() - base.iqm(), interval: wide(interval) };
    summary.verdict = verdict(n, m, improvement, difference);
    summary.improvement = Some(improvement);
    summary.difference = Some(difference);
}

/// Whether all test rewards are in [0, 1], so that the axes of charts can end at 1.
pub(super) fn are_shares(experiments: &[RunGroup<'_>]) -> bool {
    experiments.iter().all(RunGroup::rewards_are_shares)
}
