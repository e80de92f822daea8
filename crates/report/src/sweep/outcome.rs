//! Which cells count in the statistics, and how.
//!
//! Every cell that ended is an outcome, also one that failed: if only the finished cells counted, a
//! variant that collapses under two of five seeds would be judged by the other three.

use std::collections::BTreeSet;

use leyden_sweep::{FailedCells, State};

use super::load::{CellRun, SweepRuns};
use super::measure::{Ending, Measures, curve};
use crate::run::Run;

/// The measures of all cells that ended.
pub(super) struct Outcomes {
    /// By variant, then by seed, in the order of the cells.
    pub variants: Vec<Vec<(u64, Measures)>>,
    /// The last step of the sweep, to which all curves are carried forward.
    pub end: f64,
}

/// Whether a cell has ended, finished or failed.
pub(super) fn has_ended(cell: &CellRun) -> bool {
    matches!(cell.state, State::Finished | State::Failed(_))
}

/// The measures of all cells that ended in an evaluation mode. Cells that cannot be read, and
/// finished ones without a reward, are excluded with a note.
pub(super) fn outcomes(sweep: &SweepRuns, mode: &str, notes: &mut Vec<String>) -> Outcomes {
    let ended = |cell: &&CellRun| has_ended(cell) && !cell.unreadable;
    let cells = || sweep.variants.iter().flat_map(|variant| &variant.cells).filter(ended);
    let end = last_step(cells(), mode);
    let counted = |cell: &CellRun, notes: &mut Vec<String>| {
        let found = measures(cell, mode, sweep.settings.failed, end);
        if found.is_none() {
            notes.push(format!(
                "{} is finished but has no {mode} evaluation with a reward: it is excluded from \
                 the statistics.",
                cell.cell.id
            ));
        }
        found.map(|measures| (cell.cell.seed, measures))
    };
    let variants = sweep
        .variants
        .iter()
        .map(|v| v.cells.iter().filter(ended).filter_map(|c| counted(c, notes)).collect())
        .collect();
    Outcomes { variants, end }
}

/// The last step of cells, by their evaluations and their configurations.
pub(super) fn last_step<'a>(cells: impl Iterator<Item = &'a CellRun>, mode: &str) -> f64 {
    cells
        .flat_map(|cell| [last_evaluated(cell, mode), cell.run.as_ref().and_then(planned_steps)])
        .flatten()
        .fold(0.0, f64::max)
}

/// The measures of a cell that ended, its curve carried forward to the step `end`; `None` if it is
/// finished without a reward.
pub(super) fn measures(
    cell: &CellRun,
    mode: &str,
    failed: FailedCells,
    end: f64,
) -> Option<Measures> {
    let ending = match (&cell.state, last_evaluated(cell, mode)) {
        (State::Failed(_), _) => Ending::Failed,
        (_, Some(last)) if last < steps_of(cell, end) => Ending::Early,
        _ => Ending::Complete,
    };
    Measures::of(cell.run.as_ref(), curve_of(cell, mode), ending, failed, end)
}

fn curve_of(cell: &CellRun, mode: &str) -> Vec<(f64, f64)> {
    cell.run.as_ref().map_or_else(Vec::new, |run| curve(run, mode))
}

fn last_evaluated(cell: &CellRun, mode: &str) -> Option<f64> {
    curve_of(cell, mode).last().map(|(step, _)| *step)
}

/// The number of steps of a run's configuration.
fn planned_steps(run: &Run) -> Option<f64> {
    Some(train(run)?.get("steps")?.as_integer()? as f64)
}

/// The last step of a cell that does not end early: that of its configuration, because variants
/// may have different numbers of steps by design, or else that of the sweep.
fn steps_of(cell: &CellRun, end: f64) -> f64 {
    cell.run.as_ref().and_then(planned_steps).unwrap_or(end)
}

fn train(run: &Run) -> Option<&toml::Table> {
    run.config.get("train")?.as_table()
}

/// A note if final rewards are from different numbers of steps.
pub(super) fn lengths_note(outcomes: &Outcomes) -> Option<String> {
    let measures = outcomes.variants.iter().flatten();
    let steps: BTreeSet<u64> = measures.filter_map(|(_, m)| m.last_step).collect();
    (steps.len() > 1).then(|| {
        let list: Vec<String> = steps.iter().map(u64::to_string).collect();
        format!("The last evaluations are at different steps: {}.", list.join(", "))
    })
}

/// The rules by which cells count, for the reader of the report.
pub(super) fn protocol_words(sweep: &SweepRuns, end: f64) -> String {
    let failed = match sweep.settings.failed {
        FailedCells::Last => "with its last evaluation, or with 0 if it has none",
        FailedCells::Zero => "as reward 0 from the failure on",
    };
    let runs = || sweep.variants.iter().flat_map(|v| &v.cells).filter_map(|c| c.run.as_ref());
    let patience: BTreeSet<i64> = runs()
        .filter_map(|run| train(run)?.get("patience_without_variance")?.as_integer())
        .filter(|steps| *steps > 0)
        .collect();
    let early = if patience.is_empty() {
        String::new()
    } else {
        let list: Vec<String> = patience.iter().map(i64::to_string).collect();
        format!(
            " Runs may end early: they stop after {} steps in a row in which all rollouts of each \
             task had the same reward (train.patience_without_variance).",
            list.join(" or ")
        )
    };
    format!(
        "Every cell that ended counts. A failed cell counts {failed} ([report] failed in the sweep \
         file); a run that ended early keeps its last evaluation as final reward. Their curves \
         are carried forward to step {end} for the area under the curve, so that it is over the \
         same steps for all cells; the column collapsed counts both kinds, and runs that end \
         below half of their first evaluation.{early}"
    )
}
