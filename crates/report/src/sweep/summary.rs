//! The statistics and the verdict of every variant.

use leyden_core::SeedTree;
use leyden_stats::{Interval, Scores, mean, probability_of_improvement, student_interval};
use leyden_sweep::ReportSettings;

use super::by_label::{self, ByLabel};
use super::comparison::{Comparison, adjust};
use super::cost::Cost;
use super::load::{SweepRuns, VariantRuns};
use super::measure::Measures;
use super::outcome::{has_ended, lengths_note, outcomes, protocol_words};
use super::verdict::{Verdict, VerdictKind, verdict};
use crate::experiment::RunGroup;
use crate::run::Run;

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

impl Measured {
    /// A value without an interval.
    pub(super) fn bare(value: f64) -> Self {
        Self { value, interval: None }
    }
}

/// The statistics of a sweep.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The evaluation mode of all measures.
    pub mode: String,
    /// The last step of the sweep, to which all curves are carried forward.
    pub end: f64,
    /// The reward for the steps-to-threshold measure; `None` if no cell of the baseline has ended.
    pub threshold: Option<f64>,
    /// Whether the threshold was given; otherwise it is a share of the baseline's final reward.
    pub threshold_given: bool,
    pub variants: Vec<VariantSummary>,
    /// The comparisons by the values of a label, if the sweep file names one.
    pub by_label: Option<ByLabel>,
    /// The rules by which cells count, in words.
    pub protocol: String,
    pub notes: Vec<String>,
}

/// The statistics of one variant over its cells that ended.
#[derive(Debug, Clone)]
pub struct VariantSummary {
    pub name: String,
    /// Number of cells of the variant.
    pub planned: usize,
    /// Number of those that finished or failed.
    pub ended: usize,
    /// Number of those that failed or ended early.
    pub collapsed: usize,
    /// By seed, in the order of the cells; cells that ended only.
    pub measures: Vec<(u64, Measures)>,
    /// Mean over runs, its interval by Student's t.
    pub final_reward: Option<Measured>,
    /// Interquartile mean of the final reward.
    pub final_iqm: Option<f64>,
    /// Mean over runs of the area under the curve, its interval by Student's t.
    pub area: Option<Measured>,
    /// Probability that a run ends above one of the baseline; without an interval if the runs are
    /// completely separated. A description, no part of the verdict.
    pub improvement: Option<Measured>,
    /// The comparison of the final rewards with the baseline; `None` for the baseline.
    pub comparison: Option<Comparison>,
    pub verdict: Verdict,
    /// Per run: the step at which it reached the threshold.
    pub steps_to: Vec<Option<f64>>,
    /// Mean over runs.
    pub cost: Option<Cost>,
}

impl VariantSummary {
    /// The final rewards of the cells that ended.
    pub fn finals(&self) -> Vec<f64> {
        self.measures.iter().map(|(_, measures)| measures.final_reward).collect()
    }

    fn finals_by_seed(&self) -> Vec<(u64, f64)> {
        self.measures.iter().map(|(seed, measures)| (*seed, measures.final_reward)).collect()
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
    let runs = sweep.variants.iter().flat_map(|v| &v.cells).filter_map(|c| c.run.as_ref());
    let mode = mode(&sweep.settings, runs);
    let mut notes = Vec::new();
    let outcomes = outcomes(sweep, &mode, &mut notes);
    notes.extend(lengths_note(&outcomes));
    let (end, protocol) = (outcomes.end, protocol_words(sweep, outcomes.end));
    let base = sweep.variants.iter().position(|variant| variant.name == sweep.baseline);
    let finals = |measures: &[(u64, Measures)]| -> Vec<f64> {
        measures.iter().map(|(_, m)| m.final_reward).collect()
    };
    let given = sweep.settings.threshold;
    let base_mean = base.and_then(|index| mean(&finals(&outcomes.variants[index])));
    let threshold = given.or_else(|| base_mean.map(|mean| DEFAULT_SHARE * mean));
    let shares = sweep.variants.iter().flat_map(|v| &v.cells).filter_map(|c| c.run.as_ref());
    let shares = RunGroup { name: String::new(), runs: shares.collect() }.rewards_are_shares();
    let mut variants: Vec<VariantSummary> = sweep
        .variants
        .iter()
        .zip(outcomes.variants)
        .map(|(variant, measures)| of_variant(variant, measures, threshold, shares))
        .collect();
    if let Some(base) = base {
        notes.extend(compare(&mut variants, base));
    }
    let cells = || sweep.variants.iter().flat_map(|variant| &variant.cells);
    let open = cells().filter(|cell| !has_ended(cell)).count();
    for variant in &mut variants {
        variant.verdict = variant.verdict.clone().with_open_cells(open, cells().count());
    }
    let threshold_given = given.is_some();
    let by_label = None;
    let mut summary =
        Summary { mode, end, threshold, threshold_given, variants, by_label, protocol, notes };
    if let Some(label) = &sweep.settings.by {
        summary.by_label = by_label::by_label(sweep, &summary, label, shares);
        if summary.by_label.is_none() {
            let note = format!("[report] by: no evaluation has the label `{label}`.");
            summary.notes.push(note);
        }
    }
    summary
}

/// The configured mode, or `sampled` if runs have it, else `greedy`.
pub(super) fn mode<'a>(
    settings: &ReportSettings,
    mut runs: impl Iterator<Item = &'a Run>,
) -> String {
    let sampled = runs.any(|run| run.evals("sampled").next().is_some());
    let usual = if sampled { "sampled" } else { "greedy" };
    settings.mode.clone().unwrap_or_else(|| usual.to_owned())
}

/// Final rewards for statistics over runs; all test tasks are one stratum. `None` without a run.
fn scores(variant: &VariantSummary) -> Option<Scores> {
    Scores::of_tasks(vec![variant.finals()]).ok()
}

/// The mean over runs. Intervals of `shares` are clipped to 0 and 1, because Student's t ignores
/// these bounds.
pub(super) fn over_runs(values: &[f64], shares: bool) -> Option<Measured> {
    let clipped =
        |Interval { low, high }| if shares { (low.max(0.0), high.min(1.0)) } else { (low, high) };
    Some(Measured { value: mean(values)?, interval: student_interval(values).map(clipped) })
}

fn of_variant(
    variant: &VariantRuns,
    measures: Vec<(u64, Measures)>,
    threshold: Option<f64>,
    shares: bool,
) -> VariantSummary {
    let over = |figure: fn(&Measures) -> f64| {
        let values: Vec<f64> = measures.iter().map(|(_, m)| figure(m)).collect();
        over_runs(&values, shares)
    };
    let costs: Vec<Cost> = measures.iter().map(|(_, m)| m.cost).collect();
    let ended = || variant.cells.iter().filter(|cell| has_ended(cell));
    // A failed cell that cannot be read is not among the measures.
    let unread =
        ended().filter(|cell| cell.unreadable && cell.state != leyden_sweep::State::Finished);
    let collapsed = measures.iter().filter(|(_, m)| m.is_collapsed()).count() + unread.count();
    let mut summary = VariantSummary {
        name: variant.name.clone(),
        planned: variant.cells.len(),
        ended: ended().count(),
        collapsed,
        final_reward: over(|m| m.final_reward),
        final_iqm: None,
        area: over(|m| m.area),
        improvement: None,
        comparison: None,
        verdict: Verdict::new(VerdictKind::Nothing, "no verdict: no cell has ended"),
        steps_to: match threshold {
            Some(threshold) => measures.iter().map(|(_, m)| m.steps_to(threshold)).collect(),
            None => Vec::new(),
        },
        cost: Cost::mean(&costs),
        measures,
    };
    summary.final_iqm = scores(&summary).map(|scores| scores.iqm());
    summary
}

/// Compares every variant with the baseline. Returns notes on seeds that do not pair.
fn compare(variants: &mut [VariantSummary], base: usize) -> Vec<String> {
    let seeds = |index: usize| SeedTree::new(0).child("report").child("sweep").index(index as u64);
    let of_base = scores(&variants[base]);
    let base_finals = variants[base].finals_by_seed();
    for (index, variant) in variants.iter_mut().enumerate().filter(|(index, _)| *index != base) {
        variant.comparison = Comparison::of(&variant.finals_by_seed(), &base_finals);
        variant.improvement = scores(variant)
            .zip(of_base.as_ref())
            .and_then(|(own, base)| improvement(&own, base, seeds(index).child("improvement")));
    }
    let mut comparisons: Vec<&mut Comparison> =
        variants.iter_mut().filter_map(|variant| variant.comparison.as_mut()).collect();
    adjust(&mut comparisons);
    for variant in variants.iter_mut() {
        if let Some(comparison) = &variant.comparison {
            variant.verdict = verdict(comparison);
        } else if base_finals.is_empty() && !variant.measures.is_empty() {
            variant.verdict.words = "no verdict: no cell of the baseline has ended".to_owned();
        }
    }
    variants[base].verdict = Verdict::new(VerdictKind::Baseline, "the baseline");
    variants.iter().filter_map(|v| v.comparison.as_ref()?.note(&v.name)).collect()
}

/// The probability that a run of `own` ends above one of `base`.
fn improvement(own: &Scores, base: &Scores, seeds: SeedTree) -> Option<Measured> {
    let (value, interval) = probability_of_improvement(own, base, RESAMPLES, seeds).ok()?;
    let several = own.tasks()[0].len() > 1 && base.tasks()[0].len() > 1;
    // For complete separation the bootstrap interval has no width, which is not certainty.
    let known = several && value != 0.0 && value != 1.0;
    Some(Measured { value, interval: interval.filter(|_| known).map(|i| (i.low, i.high)) })
}

/// Whether all test rewards are in [0, 1], so that the axes of charts can end at 1.
pub(super) fn are_shares(experiments: &[RunGroup<'_>]) -> bool {
    experiments.iter().all(RunGroup::rewards_are_shares)
}
