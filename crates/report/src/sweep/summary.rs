//! Every variant in numbers, and the verdict on it.

use std::collections::BTreeSet;

use leyden_core::SeedTree;
use leyden_stats::{Interval, Scores, difference_interval, probability_of_improvement};

use super::load::{SweepRuns, VariantRuns};
use super::measure::{Cost, Measures};
use super::verdict::{Verdict, VerdictKind, verdict};
use crate::experiment::RunGroup;

/// Resamples of each bootstrap: the bounds of an interval are then sure to about 1 % of its
/// width, and a sweep of 15 variants takes well below a second.
const RESAMPLES: usize = 5000;

/// The share of the baseline's final reward whose arrival is timed where no level is given.
const USUAL_SHARE: f64 = 0.9;

/// A figure with its 95 % interval, where one can be given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub value: f64,
    pub interval: Option<(f64, f64)>,
}

/// The statistics of a sweep.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The evaluation mode of all figures.
    pub mode: String,
    /// The reward whose arrival is timed; `None` if the baseline has no finished run.
    pub threshold: Option<f64>,
    /// Whether the threshold was given or is a share of the baseline's final reward.
    pub threshold_given: bool,
    pub variants: Vec<VariantSummary>,
    pub notes: Vec<String>,
}

/// The statistics of one variant over its finished runs.
#[derive(Debug, Clone)]
pub struct VariantSummary {
    pub name: String,
    /// Cells of the variant.
    pub planned: usize,
    /// By seed, in the order of the cells; only of finished runs.
    pub measures: Vec<(u64, Measures)>,
    /// Interquartile mean over runs.
    pub final_reward: Option<Measured>,
    /// Likewise, of the area under the curve.
    pub area: Option<Measured>,
    /// Probability that a run ends above one of the baseline; of complete separation without an
    /// interval.
    pub improvement: Option<Measured>,
    /// Interquartile mean of the final reward less that of the baseline.
    pub difference: Option<Measured>,
    pub verdict: Verdict,
    /// By run: the step at which it reached the threshold.
    pub steps_to: Vec<Option<f64>>,
    /// Mean over runs.
    pub cost: Option<Cost>,
}

impl VariantSummary {
    /// The final rewards of the finished runs.
    pub fn finals(&self) -> Vec<f64> {
        self.measures.iter().map(|(_, measures)| measures.final_reward).collect()
    }

    /// How many runs reached the threshold.
    pub fn reached(&self) -> usize {
        self.steps_to.iter().flatten().count()
    }

    /// Median over all runs of the steps to the threshold, a run that never reached it being
    /// later than every other; `None` if the median is such a run.
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
    let threshold = given.or_else(|| base_scores.as_ref().map(|s| USUAL_SHARE * s.iqm()));
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

/// The mode that was asked for, or else the first that runs have.
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
                "{} is finished and has no {mode} evaluation with a reward: it has no part in \
                 the statistics.",
                cell.cell.id
            )),
        }
    }
    found
}

/// Final rewards after different numbers of steps are not of equal training.
fn lengths_note(measured: &[Vec<(u64, Measures)>]) -> Option<String> {
    let steps: BTreeSet<u64> = measured.iter().flatten().map(|(_, m)| m.last_step).collect();
    (steps.len() > 1).then(|| {
        let list: Vec<String> = steps.iter().map(u64::to_string).collect();
        format!("The last evaluations stand at different steps: {}.", list.join(", "))
    })
}

/// One figure of every run; all test tasks are one stratum. `None` without a run.
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
        // The bootstrap of one run has no width and says nothing.
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

/// Sets a variant beside the baseline.
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
    // Of complete separation the bootstrap has no width, which is not certainty.
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

/// Whether all test rewards of the variants are shares, so that charts may end at 1.
pub(super) fn are_shares(experiments: &[RunGroup<'_>]) -> bool {
    experiments.iter().all(RunGroup::rewards_are_shares)
}
