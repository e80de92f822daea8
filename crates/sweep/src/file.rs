//! The sweep file.
//!
//! ```toml
//! base = "../mini/calc.toml"        # an experiment, relative to this file
//! baseline = "identical"             # the variant to compare with; default: the first
//! seeds = "1..5"                     # or a list
//!
//! [set]                              # applies to every cell
//! train.steps = 120
//!
//! [[variant]]
//! name = "identical"
//!
//! [[variant]]
//! name = "discounted"
//! set = { algorithm.credit = { name = "discounted", gamma = 0.9 } }
//!
//! [grid]                             # every combination, for every variant
//! rollout.samples = [4, 8]
//!
//! [tune]                             # find the best point of a grid for every variant first
//! seeds = [101, 102]                 # none of the sweep's own
//! [tune.grid]
//! "train.learning_rate" = [1e-3, 2e-3]
//!
//! [report]
//! mode = "sampled"
//! threshold = 0.6
//! failed = "zero"                    # what a failed cell counts as; default: "last"
//! by = "horizon"                     # also compare by the values of this label
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::error::SweepError;
use crate::seeds::{distinct, parse_seeds};

/// The contents of a sweep file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Default: the file name.
    pub name: Option<String>,
    /// The experiment that every cell starts from; relative to the sweep file.
    pub base: PathBuf,
    /// The variant that the others are compared with; the first if absent.
    pub baseline: Option<String>,
    #[serde(default)]
    pub(crate) seeds: Option<Value>,
    #[serde(default)]
    pub(crate) set: Table,
    #[serde(default)]
    pub(crate) variant: Vec<VariantEntry>,
    #[serde(default)]
    pub(crate) grid: Table,
    pub(crate) tune: Option<TuneEntry>,
    #[serde(default)]
    pub report: ReportSettings,
}

/// `[tune]`, checked by [`crate::tune::Plan::of`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TuneEntry {
    pub seeds: Option<Value>,
    #[serde(default)]
    pub grid: Table,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VariantEntry {
    pub name: String,
    #[serde(default)]
    pub set: Table,
}

/// Settings of the sweep's report.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportSettings {
    /// `sampled` or `greedy`; default: the mode that the runs have, preferably sampled.
    pub mode: Option<String>,
    /// The reward threshold for sample efficiency; default: 90 % of the baseline's final reward.
    pub threshold: Option<f64>,
    /// A label of the test tasks by whose values final rewards are compared, too.
    pub by: Option<String>,
    /// What a failed cell counts as. It belongs in the sweep file so that it is decided before
    /// the results are known.
    pub failed: FailedCells,
}

/// What a failed cell counts as in the statistics. A failure is a result: without the failed cells
/// a variant that collapses under some seeds would be judged by the others alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedCells {
    /// Its last evaluation, which is carried forward; reward 0 if it has none.
    #[default]
    Last,
    /// Reward 0 from the failure on.
    Zero,
}

impl SweepFile {
    /// Reads a sweep file.
    ///
    /// # Errors
    /// A missing file, TOML that does not parse (with line), an unknown key.
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let text = std::fs::read_to_string(path).map_err(|error| SweepError::file(path, error))?;
        Self::parse(&text, path)
    }

    /// As [`SweepFile::read`], from a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`SweepFile::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, SweepError> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let message = error.message().trim_end().replace('\n', ", ");
            let line = error.span().and_then(|span| text.get(..span.start));
            let line = line.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
            SweepError::file(path, format!("{}{message}", line.unwrap_or_default()))
        })?;
        if let Some(mode) = &file.report.mode
            && !["sampled", "greedy"].contains(&mode.as_str())
        {
            let what = format!("`{mode}`: use sampled or greedy");
            return Err(key(path, "report.mode", what));
        }
        if file.report.threshold.is_some_and(|threshold| !threshold.is_finite()) {
            return Err(key(path, "report.threshold", "must be a number".to_owned()));
        }
        Ok(file)
    }

    /// The seeds of the file; `None` if it has none.
    pub(crate) fn seeds(&self, path: &Path) -> Result<Option<Vec<u64>>, SweepError> {
        self.seeds.as_ref().map(|value| seed_list("seeds", value, path)).transpose()
    }
}

/// The seeds that `name` lists.
pub(crate) fn seed_list(name: &str, value: &Value, path: &Path) -> Result<Vec<u64>, SweepError> {
    let refuse = |what: String| key(path, name, what);
    let seeds = match value {
        Value::String(text) => parse_seeds(text).map_err(|error| refuse(error.to_string()))?,
        Value::Array(list) => list
            .iter()
            .map(|seed| seed.as_integer().and_then(|seed| u64::try_from(seed).ok()))
            .collect::<Option<Vec<u64>>>()
            .ok_or_else(|| refuse(format!("{value} is not a list of non-negative integers")))?,
        other => return Err(refuse(format!("{other}: write \"1..5\" or [1, 2, 7]"))),
    };
    distinct(&seeds).map_err(refuse)?;
    Ok(seeds)
}

pub(crate) fn key(path: &Path, key: &str, what: String) -> SweepError {
    SweepError::Key { path: path.to_owned(), key: key.to_owned(), what }
}

/// Flattens a table to dotted keys with values, in the order of the table.
///
/// Nested tables are flattened, so that single keys can be set. A table of the algorithm with a
/// `name` selects a variant and is kept whole: it replaces the base's table with all its keys,
/// which may be invalid for the other variant.
pub(crate) fn flatten(table: &Table) -> Vec<(String, Value)> {
    fn walk(prefix: &str, table: &Table, out: &mut Vec<(String, Value)>) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) if !is_choice(&path, inner) => walk(&path, inner, out),
                _ => out.push((path, value.clone())),
            }
        }
    }
    let mut out = Vec::new();
    walk("", table, &mut out);
    out
}

fn is_choice(path: &str, table: &Table) -> bool {
    // In a grid, `name` is a list of names, not a selection.
    path.starts_with("algorithm.") && table.get("name").is_some_and(Value::is_str)
}
