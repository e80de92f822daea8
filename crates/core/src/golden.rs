//! Golden files: reference values from another program, and comparisons against them.
//!
//! Each crate with golden values has a function that reads such a file and returns a
//! [`GoldenReport`]; `leyden verify` prints it and the tests assert it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Errors reading a golden file.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error("the golden file {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the golden file {}, line {line}, is not a case: {what}", path.display())]
    Case { path: PathBuf, line: usize, what: String },
}

/// Reads a golden JSONL file of cases; blank lines are skipped.
///
/// # Errors
/// If the file cannot be read or a line does not parse as a case.
pub fn golden_cases<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, GoldenError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| GoldenError::Read { path: path.to_owned(), source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| GoldenError::Case {
                path: path.to_owned(),
                line: index + 1,
                what: error.to_string(),
            })
        })
        .collect()
}

/// One line of a report: a family of cases and its deviation from the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub cases: usize,
    /// Cases outside the tolerance.
    pub disagreements: usize,
    /// Largest error among the cases, for numeric families.
    pub largest_error: Option<f64>,
    /// The largest error that counts as agreement.
    pub tolerance: Option<f64>,
    /// Description of the first disagreement.
    pub first: Option<String>,
}

impl Family {
    /// An empty family of numeric cases with a tolerance.
    pub fn numeric(name: impl Into<String>, tolerance: f64) -> Self {
        Self {
            name: name.into(),
            cases: 0,
            disagreements: 0,
            largest_error: Some(0.0),
            tolerance: Some(tolerance),
            first: None,
        }
    }

    /// An empty family of cases that match exactly or not.
    pub fn exact(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cases: 0,
            disagreements: 0,
            largest_error: None,
            tolerance: None,
            first: None,
        }
    }

    /// Adds a case by its error; NaN is a disagreement.
    pub fn error(&mut self, error: f64, what: impl FnOnce() -> String) {
        self.cases += 1;
        let largest = self.largest_error.get_or_insert(0.0);
        *largest = if error.is_nan() { f64::INFINITY } else { largest.max(error) };
        if error.is_nan() || error > self.tolerance.unwrap_or(0.0) {
            self.disagree(what);
        }
    }

    /// Adds a case by whether it matches.
    pub fn agree(&mut self, same: bool, what: impl FnOnce() -> String) {
        self.cases += 1;
        if !same {
            self.disagree(what);
        }
    }

    fn disagree(&mut self, what: impl FnOnce() -> String) {
        self.disagreements += 1;
        if self.first.is_none() {
            self.first = Some(what());
        }
    }
}

/// All families of one golden file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GoldenReport {
    pub families: Vec<Family>,
}

impl GoldenReport {
    /// Whether there are cases and none disagrees.
    pub fn holds(&self) -> bool {
        self.families.iter().any(|f| f.cases > 0)
            && self.families.iter().all(|f| f.disagreements == 0)
    }
}

impl fmt::Display for GoldenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in &self.families {
            let verdict = if family.disagreements == 0 { "ok  " } else { "FAIL" };
            write!(f, "{verdict} {:<40} {:>6} cases", family.name, family.cases)?;
            match (family.largest_error, family.tolerance) {
                (Some(error), Some(tolerance)) => {
                    write!(f, "  largest error {error:.3e} (allowed {tolerance:.0e})")?;
                }
                _ => write!(f, "  {} disagreements", family.disagreements)?,
            }
            if let Some(first) = &family.first {
                write!(f, "\n     first: {first}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Path of a golden file that the checkout itself has; `tests/golden/README.md` says how each was
/// made.
pub fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Path of reference material next to the checkout. If it is absent, prints a note to standard
/// error and returns `None`; tests that need it are then skipped.
pub fn shared_material(relative: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let path = root.join(relative);
    if path.exists() {
        Some(path)
    } else {
        eprintln!("skipped: reference material {relative} is not next to this checkout");
        None
    }
}
