//! The report of a sweep: variants compared over their seeds.
//!
//! Every cell that ended counts, also one that failed ([`Ending`]). Final rewards are compared with
//! those of the baseline by Student's paired t test over the seeds, or by Welch's where seeds do not
//! pair ([`Comparison`]); claims are corrected for the number of comparisons ([`Verdict`]).
//! Interquartile means, probabilities of improvement and the performance profile of Agarwal et al.,
//! arXiv 2108.13264, describe the runs further.
//!
//! A sweep that tunes has a table of its tuning ([`tuning()`]), whose cells are in no comparison.
//!
//! A report must be possible while the sweep is active: cells that have not ended have curves, are
//! excluded from the statistics, and are listed on the page, and all verdicts are preliminary.

mod by_label;
mod charts;
mod comparison;
mod cost;
mod load;
mod measure;
mod outcome;
mod page;
mod spending;
mod summary;
mod tables;
mod tuning;
mod tuning_tables;
mod verdict;
mod words;

use std::path::Path;

pub use by_label::{ByLabel, OfValue, OfVariant};
pub use comparison::{Comparison, Design};
pub use cost::Cost;
pub(crate) use load::load_sweep_at;
pub use load::{CellRun, SweepRuns, VariantRuns, VariantTuning, load_sweep};
pub use measure::{Ending, Measures};
pub use summary::{Measured, Summary, VariantSummary, summarise};
pub use tuning::{GridPoint, Tuning, VariantPoints, tuning, tuning_areas};
pub use verdict::{Verdict, VerdictKind};

use crate::curves::curves_csv;
use crate::error::ReportError;
use crate::experiment::RunGroup;
use crate::run::Run;
use crate::write::{Folder, Options, Written};

/// Writes the report of a sweep into `out_dir`, replacing files of equal name.
///
/// # Errors
/// [`ReportError::EmptySweep`] if no cell has an evaluation; [`ReportError::Write`] if a file
/// cannot be written.
pub fn write_sweep(
    sweep: &SweepRuns,
    out_dir: &Path,
    options: &Options,
) -> Result<Written, ReportError> {
    let experiments = experiments(sweep);
    let tuned = sweep.tuning.iter().flat_map(|variant| &variant.cells);
    let tuned = tuned.filter_map(|cell| cell.run.as_ref());
    if !experiments.iter().flat_map(|e| &e.runs).copied().chain(tuned).any(|r| !r.evals.is_empty())
    {
        return Err(ReportError::EmptySweep(sweep.folder.clone()));
    }
    let summary = summarise(sweep);
    let shares = summary::are_shares(&experiments);
    let mut figures = charts::figures(&experiments, &summary);
    figures.extend(summary.by_label.iter().flat_map(|by| by.figures(&summary, shares)));
    let mut notes = sweep.notes.clone();
    notes.extend(summary.notes.iter().cloned());
    let tuning = tuning(sweep);
    notes.extend(tuning.iter().flat_map(|tuning| tuning.notes.iter().cloned()));

    let mut folder = Folder::create(out_dir)?;
    if options.files {
        folder.put_figures(&figures)?;
    }
    let mut markdown = tables::markdown(sweep, &summary);
    if let Some(tuning) = &tuning {
        markdown += &tuning_tables::markdown(sweep, tuning);
        folder.put("tuning.csv", tuning_tables::csv(tuning).as_bytes())?;
    }
    folder.put("sweep.md", markdown.as_bytes())?;
    folder.put("variants.csv", tables::variants_csv(&summary).as_bytes())?;
    folder.put("cells.csv", tables::cells_csv(sweep, &summary).as_bytes())?;
    if let Some(by_label) = &summary.by_label {
        folder.put("by_label.csv", by_label.csv().as_bytes())?;
    }
    folder.put("curves.csv", curves_csv(&experiments).as_bytes())?;
    let html = page::page(sweep, (&summary, tuning.as_ref()), &figures, &notes, options)?;
    let page = folder.put("index.html", html.as_bytes())?;
    Ok(Written { page, files: folder.files, table: markdown, notes })
}

/// The variants as experiments, for the charts. Variants without a run are kept, so that a variant
/// has the same colour in every chart.
fn experiments(sweep: &SweepRuns) -> Vec<RunGroup<'_>> {
    fn runs(variant: &VariantRuns) -> Vec<&Run> {
        let runs = variant.cells.iter().filter_map(|cell| cell.run.as_ref());
        runs.filter(|run| !run.is_empty()).collect()
    }
    sweep.variants.iter().map(|v| RunGroup { name: v.name.clone(), runs: runs(v) }).collect()
}
