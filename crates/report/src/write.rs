//! Writes the files of a report.

use std::fs;
use std::path::{Path, PathBuf};

use crate::chart::Chart;
use crate::error::ReportError;
use crate::figures::{Figure, Section, figures};
use crate::raster::png;
use crate::run::Run;
use crate::svg::{Theme, render};
use crate::{experiment, page, table};

/// Optional contents of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Title of the page; without one, the names of the experiments.
    pub title: Option<String>,
    /// Number of tasks shown before and after training, at most five.
    pub samples: usize,
    /// Whether charts are also written as SVG and PNG files.
    pub files: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { title: None, samples: 5, files: true }
    }
}

/// The files written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub page: PathBuf,
    /// All files, the page included.
    pub files: Vec<PathBuf>,
    /// The table as Markdown, for a terminal.
    pub table: String,
    /// Warnings for the reader of the report.
    pub notes: Vec<String>,
}

/// Writes the report of `runs` into `out_dir`, replacing files of equal name.
///
/// # Errors
/// [`ReportError::NoRuns`] and [`ReportError::Empty`] if there is nothing to show;
/// [`ReportError::Write`] if a file cannot be written.
pub fn write(runs: &[Run], out_dir: &Path, options: &Options) -> Result<Written, ReportError> {
    if runs.is_empty() {
        return Err(ReportError::NoRuns);
    }
    let (empty, full): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| run.is_empty());
    if full.is_empty() {
        return Err(ReportError::Empty(empty.iter().map(|run| run.folder.clone()).collect()));
    }
    let mut notes: Vec<String> = empty
        .iter()
        .map(|run| {
            format!("{} has no step and no evaluation yet and is not shown.", run.folder.display())
        })
        .collect();
    for run in &full {
        notes.extend(run.notes.iter().map(|note| format!("{}: {note}", run.folder.display())));
    }
    let full: Vec<Run> = full.into_iter().cloned().collect();
    let experiments = experiment::group(&full);
    for (first, second) in experiments.iter().flat_map(experiment::RunGroup::repetitions) {
        notes.push(format!(
            "{} and {} have the same configuration and seed: they are not independent.",
            first.folder.display(),
            second.folder.display()
        ));
    }
    let figures = figures(&experiments);
    let rows = table::rows(&experiments);

    let mut folder = Folder::create(out_dir)?;
    if options.files {
        folder.put_figures(&figures)?;
    }
    // The panels together as one image for a README.
    let panels: Vec<Chart> =
        figures.iter().filter(|f| f.section == Section::Panels).map(|f| f.chart.clone()).collect();
    if !panels.is_empty() && options.files {
        folder.put_image("reward", &panels, "panels")?;
    }
    folder.put("table.csv", table::csv(&rows).as_bytes())?;
    let markdown = table::markdown(&rows);
    folder.put("table.md", markdown.as_bytes())?;
    folder.put("curves.csv", crate::curves::curves_csv(&experiments).as_bytes())?;
    let html = page::page(&experiments, &figures, &rows, &notes, options)?;
    let page = folder.put("index.html", html.as_bytes())?;
    Ok(Written { page, files: folder.files, table: markdown, notes })
}

/// The output folder and the files written to it.
pub(crate) struct Folder {
    path: PathBuf,
    pub files: Vec<PathBuf>,
}

impl Folder {
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        fs::create_dir_all(path)
            .map_err(|source| ReportError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), files: Vec::new() })
    }

    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<PathBuf, ReportError> {
        let path = self.path.join(name);
        fs::write(&path, bytes)
            .map_err(|source| ReportError::Write { path: path.clone(), source })?;
        self.files.push(path.clone());
        Ok(path)
    }

    /// Every chart as SVG and PNG files.
    pub fn put_figures(&mut self, figures: &[Figure]) -> Result<(), ReportError> {
        figures.iter().try_for_each(|figure| {
            self.put_image(&figure.file, std::slice::from_ref(&figure.chart), "chart")
        })
    }

    /// Charts side by side as one image, in SVG and PNG; `id` is that of the SVG.
    fn put_image(&mut self, file: &str, charts: &[Chart], id: &str) -> Result<(), ReportError> {
        self.put_drawing(file, &render(charts, charts.len(), Theme::Paper, id))
    }

    /// A drawing in SVG and PNG.
    pub fn put_drawing(&mut self, file: &str, svg: &str) -> Result<(), ReportError> {
        let image =
            png(svg).map_err(|message| ReportError::Raster { figure: file.to_owned(), message })?;
        self.put(&format!("{file}.svg"), svg.as_bytes())?;
        self.put(&format!("{file}.png"), &image)?;
        Ok(())
    }
}
