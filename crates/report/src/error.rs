//! Errors of reading runs and writing reports.

use std::path::PathBuf;

use thiserror::Error;

/// An error while reading a run or writing a report.
#[derive(Debug, Error)]
pub enum ReportError {
    #[error("there is no run folder at {0}: give the folder that `leyden run` wrote")]
    NoFolder(PathBuf),
    #[error(
        "{0} has no config.toml, so it is not a run folder: give the folder that `leyden run` wrote"
    )]
    NotARun(PathBuf),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not TOML: {message}")]
    Config { path: PathBuf, message: String },
    #[error("{path} is not a JSON object: {message}")]
    Provenance { path: PathBuf, message: String },
    #[error("{path} line {line} is not a record of this format: {message}")]
    Line { path: PathBuf, line: usize, message: String },
    #[error(
        "{path} line {line} has schema {found}, this program reads up to {known}: \
         write the report with the version that wrote the run, or a newer one"
    )]
    Schema { path: PathBuf, line: usize, found: u64, known: u32 },
    #[error("cannot read rollouts from {path}: {source}")]
    Rollouts { path: PathBuf, source: rusqlite::Error },
    #[error("{path} does not contain sample rollouts: {message}")]
    Samples { path: PathBuf, message: String },
    #[error("{path} is not what `leyden kernels --json` writes: {message}")]
    Kernels { path: PathBuf, message: String },
    #[error(
        "{path} cannot be used: {what}; fetch the file again, or record the runs again with \
         `leyden report … --record`"
    )]
    Archive { path: PathBuf, what: String },
    /// An error about a file inside an archive.
    #[error("{0}")]
    InArchive(String),
    #[error("{archive} has no run `{run}`; it has {}", .found.join(", "))]
    NotRecorded { archive: PathBuf, run: String, found: Vec<String> },
    #[error("{folder} is a recording of several runs: name one of {}", list(.runs))]
    Several { folder: PathBuf, runs: Vec<PathBuf> },
    #[error("two of the runs are in folders named `{0}`: a recording needs a name for each")]
    SameName(String),
    #[error("no run was given: name at least one run folder")]
    NoRuns,
    #[error("{} has no step and no evaluation yet, so there is nothing to report: wait for the first evaluation, or continue the run", list(.0))]
    Empty(Vec<PathBuf>),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot draw {figure} as PNG: {message}")]
    Raster { figure: String, message: String },
    #[error(transparent)]
    Sweep(#[from] leyden_sweep::SweepError),
    #[error("{0} is finished but has no {1} evaluation with a reward, so it cannot be measured")]
    NoArea(String, String),
    #[error("{0}: no cell has an evaluation yet, so there is nothing to report: run the sweep")]
    EmptySweep(PathBuf),
    #[error("{0}: the baseline `{1}` of sweep.toml is no variant of cells.jsonl: {2}")]
    Baseline(PathBuf, String, String),
    #[error("cannot fill in the page: {0}")]
    Page(#[from] minijinja::Error),
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
