//! Reads a sweep folder: its cells, their state and their runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use leyden_sweep::{Cell, ReportSettings, Revision, State, SweepFolder};

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
    /// Warnings from reading the sweep, for the reader of the report.
    pub notes: Vec<String>,
}

/// A variant with its cells, one per seed.
#[derive(Debug, Clone)]
pub struct VariantRuns {
    pub name: String,
    /// Overrides of the base experiment.
    pub overrides: Vec<String>,
    pub cells: Vec<CellRun>,
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
    for cell in folder.cells()? {
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
        own.cells.push(CellRun { cell, state, run, unreadable });
    }
    notes.extend(revision_note(&folder, &variants));
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
        notes,
    })
}

/// A note if the cells were run by several revisions, which may differ beyond their variants.
fn revision_note(folder: &SweepFolder, variants: &[VariantRuns]) -> Option<String> {
    let cells = variants.iter().flat_map(|variant| &variant.cells);
    let revisions: BTreeSet<String> = cells
        .filter_map(|cell| Revision::of_run(&folder.run_folder(&cell.cell)))
        .map(|revision| revision.words())
        .collect();
    (revisions.len() > 1).then(|| {
        let list: Vec<String> = revisions.into_iter().collect();
        format!("The cells were started by {} revisions: {}.", list.len(), list.join(", "))
    })
}
