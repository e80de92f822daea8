//! The choice of a variant's point of the grid, made from its tuning cells.
//!
//! It is written when the first cell of the variant's comparison begins, under a lock, and never
//! changed: until then a failed tuning cell can be run again (`--retry`), afterwards its failure
//! is part of the choice.

use std::fs::{self, File};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, file_name};
use crate::error::SweepError;
use crate::folder::{SweepFolder, open_lock, write_atomic};

/// Computes the measure of tuning cells, in their order: the area under the curve of evaluations,
/// larger is better. All cells are of one variant and have ended. An error is a sentence without
/// a full stop.
pub type Measure<'a> = dyn Fn(&[Cell]) -> Result<Vec<f64>, String> + Sync + 'a;

/// The folder of the choices in a sweep folder.
pub const CHOICES: &str = "choices";

/// The chosen point of a variant, and the means of all points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub variant: String,
    /// The chosen point, as overrides.
    pub chosen: Vec<String>,
    pub seeds: Vec<u64>,
    /// All points, in the order of the grid.
    pub points: Vec<PointMean>,
}

/// The measure of a point of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointMean {
    /// The point, as overrides.
    pub overrides: Vec<String>,
    /// The area under the curve by seed, in the order of [`Choice::seeds`].
    pub areas: Vec<f64>,
    pub mean: f64,
}

impl Choice {
    /// The choice among the points of `cells`, the tuning cells of a variant with their `areas`:
    /// the point with the largest mean; of several, the first in the order of the grid. `None`
    /// without cells and for areas that are not finite or not one for each cell.
    pub fn of(cells: &[Cell], areas: &[f64]) -> Option<Self> {
        if cells.len() != areas.len() || !areas.iter().all(|area| area.is_finite()) {
            return None;
        }
        let mut seeds: Vec<u64> = Vec::new();
        let mut points: Vec<PointMean> = Vec::new();
        for (cell, area) in cells.iter().zip(areas) {
            let overrides = cell.point.clone()?;
            if !seeds.contains(&cell.seed) {
                seeds.push(cell.seed);
            }
            match points.iter_mut().find(|point| point.overrides == overrides) {
                Some(point) => point.areas.push(*area),
                None => points.push(PointMean { overrides, areas: vec![*area], mean: 0.0 }),
            }
        }
        for point in &mut points {
            point.mean = mean(&point.areas);
        }
        let first = points.first()?;
        let best = points.iter().fold(
            first,
            |best, point| {
                if point.mean > best.mean { point } else { best }
            },
        );
        let chosen = best.overrides.clone();
        Some(Self { variant: cells[0].variant.clone(), chosen, seeds, points })
    }

    /// A cell of the comparison with the chosen point.
    pub fn apply(&self, cell: &Cell) -> Cell {
        let overrides = [cell.overrides.as_slice(), &self.chosen].concat();
        Cell { overrides, ..cell.clone() }
    }
}

/// The mean, independent of the order of the values, so that ties are ties.
fn mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.iter().sum::<f64>() / sorted.len() as f64
}

/// Result of asking for a choice.
pub(crate) enum Made {
    Choice(Choice),
    /// Tuning cells of the variant have not ended.
    NotYet,
    /// The tuning cells cannot be measured, with the reason.
    Impossible(String),
}

impl SweepFolder {
    /// The file of a variant's choice.
    pub fn choice_file(&self, variant: &str) -> PathBuf {
        self.root().join(CHOICES).join(format!("{}.json", file_name(variant)))
    }

    /// The choice of a variant, if it has been made.
    ///
    /// # Errors
    /// A file that cannot be read or is not a choice.
    pub fn choice(&self, variant: &str) -> Result<Option<Choice>, SweepError> {
        let path = self.choice_file(variant);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SweepError::file(path, error)),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            SweepError::file(path, format!("not the choice of a variant: {error}"))
        })
    }

    /// The choice from `tuning`, all tuning cells of a variant; it is made now if they have ended.
    pub(crate) fn choose(
        &self,
        tuning: &[Cell],
        measure: &Measure<'_>,
    ) -> Result<Made, SweepError> {
        let _lock = self.lock_choices()?;
        let variant = tuning.first().map_or("", |cell| cell.variant.as_str());
        if let Some(choice) = self.choice(variant)? {
            return Ok(Made::Choice(choice));
        }
        if !tuning.iter().all(|cell| self.has_ended(cell)) {
            return Ok(Made::NotYet);
        }
        let choice = measure(tuning).and_then(|areas| {
            Choice::of(tuning, &areas).ok_or_else(|| "an area is not a number".to_owned())
        });
        let choice = match choice {
            Ok(choice) => choice,
            Err(why) => return Ok(Made::Impossible(why)),
        };
        let folder = self.root().join(CHOICES);
        fs::create_dir_all(&folder).map_err(|error| SweepError::file(folder, error))?;
        let text = serde_json::to_string_pretty(&choice).expect("a choice is plain data") + "\n";
        write_atomic(&self.choice_file(variant), text.as_bytes())?;
        Ok(Made::Choice(choice))
    }

    /// Removes the mark of a failed cell whose lock is held, so that it is run again. Returns
    /// false for a tuning cell if the choice has been made.
    pub(crate) fn forget_failure(&self, cell: &Cell) -> Result<bool, SweepError> {
        // A choice must not be made from a failure that is being retried.
        let _lock = cell.point.is_some().then(|| self.lock_choices()).transpose()?;
        if cell.point.is_some() && self.choice(&cell.variant)?.is_some() {
            return Ok(false);
        }
        let path = self.failed(cell);
        fs::remove_file(&path).map_err(|error| SweepError::file(path, error))?;
        Ok(true)
    }

    /// Whether a cell finished or failed.
    pub fn has_ended(&self, cell: &Cell) -> bool {
        self.is_finished(cell) || self.failed(cell).is_file()
    }

    /// Held until the file is dropped, for a moment only.
    fn lock_choices(&self) -> Result<File, SweepError> {
        let path = self.root().join("status").join(".choices.lock");
        let lock = open_lock(&path)?;
        lock.lock().map_err(|error| SweepError::file(&path, error))?;
        Ok(lock)
    }
}
