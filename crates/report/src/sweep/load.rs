//! Reads a sweep folder: its cells, their state and their runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use leyden_sweep::{Cell, Choice, ReportSettings, Revision, State, SweepFolder};

use crate::error::ReportError;
use crate::recorded::{ARCHIVE, Source, Unpacked, is_recorded, unpack};
use crate::run::Run;

/// The data of a sweep that a report shows.
#[derive(Debug, Clone)]
pub struct SweepRuns {
    pub folder: PathBuf,
    pub name: String,
    pub baseline: String,
    pub settings: ReportSettings,
    /// In the order of the cells.
    pub variants: Vec<VariantRuns>,
    /// The tuning of every variant, in the same order; empty for a sweep without tuning.
    pub tuning: Vec<VariantTuning>,
    /// Warnings from reading the sweep, for the reader of the report.
    pub notes: Vec<String>,
}

impl SweepRuns {
    /// The cells of the comparison, then the tuning cells.
    pub(crate) fn all_cells(&self) -> impl Iterator<Item = &CellRun> {
        let cells = self.variants.iter().flat_map(|variant| &variant.cells);
        cells.chain(self.tuning.iter().flat_map(|variant| &variant.cells))
    }
}

/// A variant with its cells, one per seed.
#[derive(Debug, Clone)]
pub struct VariantRuns {
    pub name: String,
    /// Overrides of the base experiment, with the point that tuning has chosen.
    pub overrides: Vec<String>,
    pub cells: Vec<CellRun>,
}

/// A variant's tuning cells, which are no part of the comparison.
#[derive(Debug, Clone)]
pub struct VariantTuning {
    pub name: String,
    /// Point by point, each with all tuning seeds.
    pub cells: Vec<CellRun>,
    /// `None` as long as it has not been made.
    pub choice: Option<Choice>,
}

/// A cell with its state and its run.
#[derive(Debug, Clone)]
pub struct CellRun {
    pub cell: Cell,
    pub state: State,
    /// `None` if nothing has been written yet or the run cannot be read.
    pub run: Option<Run>,
    /// Whether there is a run that cannot be read. Such a cell is not in the statistics.
    pub unreadable: bool,
}

/// Reads a sweep folder, or the recording of one.
///
/// # Errors
/// [`ReportError::Sweep`] if it is not a sweep or its own files cannot be read, and
/// [`ReportError::Baseline`] if its baseline is not among its cells. A run that cannot be read is
/// only a note.
pub fn load_sweep(root: &Path) -> Result<SweepRuns, ReportError> {
    let unpacked = is_recorded(root).then(|| unpack(&root.join(ARCHIVE))).transpose()?;
    load_sweep_at(root, unpacked.map(Rc::new).as_ref())
}

/// Reads the sweep of an unpacked archive as if it were at `root`, or else the folder `root`.
pub(crate) fn load_sweep_at(
    root: &Path,
    unpacked: Option<&Rc<Unpacked>>,
) -> Result<SweepRuns, ReportError> {
    let sweep = read(root, unpacked);
    match unpacked {
        Some(unpacked) => sweep.map_err(|error| unpacked.error(&error)),
        None => sweep,
    }
}

fn read(root: &Path, unpacked: Option<&Rc<Unpacked>>) -> Result<SweepRuns, ReportError> {
    let folder = SweepFolder::at(unpacked.map_or(root, |unpacked| unpacked.root()));
    let shown = SweepFolder::at(root);
    let file = folder.file()?;
    let mut variants: Vec<VariantRuns> = Vec::new();
    let mut notes = Vec::new();
    let mut load = |cell: Cell| -> Result<CellRun, ReportError> {
        let source = Source {
            shown: shown.run_folder(&cell),
            actual: folder.run_folder(&cell),
            unpacked: unpacked.cloned(),
        };
        let (run, unreadable) = match source.load_if_any() {
            Ok(run) => (run, false),
            Err(error) => {
                notes.push(format!("{} is excluded: {error}.", cell.id));
                (None, true)
            }
        };
        notes.extend(run.iter().flat_map(|run| &run.notes).map(|n| format!("{}: {n}", cell.id)));
        let state = folder.state(&cell)?;
        Ok(CellRun { cell, state, run, unreadable })
    };
    for cell in folder.cells()? {
        let name = cell.variant.clone();
        let own = match variants.iter().position(|variant| variant.name == name) {
            Some(index) => &mut variants[index],
            None => {
                // The first override is the name of the run.
                let overrides =
                    cell.overrides.iter().filter(|o| !o.starts_with("name=")).cloned().collect();
                variants.push(VariantRuns { name, overrides, cells: Vec::new() });
                variants.last_mut().expect("one was just added")
            }
        };
        own.cells.push(load(cell)?);
    }
    let tuning = tuning(&folder, &mut variants, &mut load)?;
    let cells = variants.iter().flat_map(|variant| &variant.cells);
    let all = cells.chain(tuning.iter().flat_map(|variant| &variant.cells));
    notes.extend(revision_note(&folder, all));
    let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
    let baseline = file.baseline.or_else(|| names.first().map(|&name| name.to_owned()));
    let baseline = baseline.unwrap_or_default();
    if !names.contains(&baseline.as_str()) {
        return Err(ReportError::Baseline(root.to_owned(), baseline, names.join("; ")));
    }
    let stem = root.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok(SweepRuns {
        folder: root.to_owned(),
        name: file.name.unwrap_or(stem),
        baseline,
        settings: file.report,
        variants,
        tuning,
        notes,
    })
}

/// The tuning of the variants, whose overrides are extended by the points that were chosen.
fn tuning(
    folder: &SweepFolder,
    variants: &mut [VariantRuns],
    load: &mut dyn FnMut(Cell) -> Result<CellRun, ReportError>,
) -> Result<Vec<VariantTuning>, ReportError> {
    let cells = folder.tuning()?;
    let mut found = Vec::new();
    for variant in variants {
        let own = cells.iter().filter(|cell| cell.variant == variant.name).cloned();
        let own = own.map(&mut *load).collect::<Result<Vec<CellRun>, ReportError>>()?;
        if own.is_empty() {
            continue;
        }
        let choice = folder.choice(&variant.name)?;
        variant.overrides.extend(choice.iter().flat_map(|choice| choice.chosen.clone()));
        found.push(VariantTuning { name: variant.name.clone(), cells: own, choice });
    }
    Ok(found)
}

/// A note if the cells were run by several revisions, which may differ beyond their variants.
fn revision_note<'a>(
    folder: &SweepFolder,
    cells: impl Iterator<Item = &'a CellRun>,
) -> Option<String> {
    let revisions: BTreeSet<String> = cells
        .filter_map(|cell| Revision::of_run(&folder.run_folder(&cell.cell)))
        .map(|revision| revision.words())
        .collect();
    (revisions.len() > 1).then(|| {
        let list: Vec<String> = revisions.into_iter().collect();
        format!("The cells were started by {} revisions: {}.", list.len(), list.join(", "))
    })
}
