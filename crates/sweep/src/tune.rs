//! Tuning: `[tune]` of a sweep file, its grid and its cells.
//!
//! A comparison at hyperparameters that were found with one variant favours that variant. With
//! `[tune]` every variant gets the point of a grid that is best for it, found on seeds that the
//! comparison does not use.

use std::path::Path;

use toml::Value;

use crate::cell::Cell;
use crate::error::SweepError;
use crate::file::{SweepFile, flatten, key, seed_list};

/// Maximum number of grid points, as a safeguard against typing errors.
const MOST_POINTS: usize = 1000;

/// What `[tune]` says.
pub(crate) struct Plan {
    seeds: Vec<u64>,
    keys: Vec<String>,
    /// The points of the grid as overrides, `key=number`: the keys in alphabetical order, the last
    /// one changing fastest, the values of a key in the order of its list.
    points: Vec<Vec<String>>,
}

impl Plan {
    /// The plan of a file whose cells have `seeds`; `None` without `[tune]`.
    ///
    /// # Errors
    /// Seeds that are missing, occur twice or are among `seeds`; an empty or too large grid; a key
    /// that the sweep sets itself; values that are not distinct numbers.
    pub fn of(file: &SweepFile, seeds: &[u64], path: &Path) -> Result<Option<Self>, SweepError> {
        let Some(entry) = &file.tune else { return Ok(None) };
        let own = entry.seeds.as_ref().ok_or_else(|| {
            let what = "is missing: give seeds that the sweep does not use, as [101, 102]";
            key(path, "tune.seeds", what.to_owned())
        })?;
        let own = seed_list("tune.seeds", own, path)?;
        if let Some(shared) = own.iter().find(|seed| seeds.contains(seed)) {
            return Err(key(path, "tune.seeds", overlap(*shared)));
        }
        let mut axes = flatten(&entry.grid);
        axes.sort_by(|a, b| a.0.cmp(&b.0));
        if axes.is_empty() {
            let what =
                "has no key: list the values to try, as \"train.learning_rate\" = [1e-3, 2e-3]";
            return Err(key(path, "tune.grid", what.to_owned()));
        }
        let mut points: Vec<Vec<String>> = vec![Vec::new()];
        for (index, (axis, values)) in axes.iter().enumerate() {
            let refuse = |what: String| key(path, &format!("tune.grid.{axis}"), what);
            if axis == "seed" || axis == "name" {
                return Err(refuse("is set by the sweep: tune another key".to_owned()));
            }
            let nested = |other: &str| {
                axis.strip_prefix(other)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if let Some((other, _)) = axes[..index].iter().find(|(other, _)| nested(other)) {
                return Err(refuse(format!("`{other}` is tuned as well: remove one of them")));
            }
            let values = numbers(values).map_err(refuse)?;
            if points.len() * values.len() > MOST_POINTS {
                let what = format!("has more than {MOST_POINTS} points");
                return Err(key(path, "tune.grid", what));
            }
            let extended = |point: &Vec<String>| -> Vec<Vec<String>> {
                let with = |value| [point.as_slice(), &[format!("{axis}={value}")]].concat();
                values.iter().map(with).collect()
            };
            points = points.iter().flat_map(extended).collect();
        }
        let keys = axes.into_iter().map(|(key, _)| key).collect();
        Ok(Some(Self { seeds: own, keys, points }))
    }

    /// The tuned key that an override sets, if any.
    pub fn tuned(&self, set: &str, value: &Value) -> Option<&str> {
        let sets = |tuned: &&String| {
            let below = |inner: &str, outer: &str| -> Option<String> {
                Some(inner.strip_prefix(outer)?.strip_prefix('.')?.to_owned())
            };
            *tuned == set
                || below(set, tuned).is_some()
                || below(tuned, set).is_some_and(|rest| has(value, &rest))
        };
        self.keys.iter().find(sets).map(String::as_str)
    }

    /// The tuning cells of a variant in a sweep named `sweep`: point by point, each with all seeds.
    pub fn cells(
        &self,
        sweep: &str,
        variant: &str,
        folder: &str,
        overrides: &[String],
    ) -> Vec<Cell> {
        let cell = |number: usize, point: &[String], seed: u64| {
            let own = [format!("name={:?}", format!("{sweep}-{folder}-tune{number}"))];
            Cell {
                id: format!("tune-{folder}-point{number}-seed{seed}"),
                variant: variant.to_owned(),
                seed,
                overrides: [&own, overrides, point].concat(),
                point: Some(point.to_vec()),
            }
        };
        let of_point = |(index, point): (usize, &Vec<String>)| {
            self.seeds.iter().map(|seed| cell(index + 1, point, *seed)).collect::<Vec<_>>()
        };
        self.points.iter().enumerate().flat_map(of_point).collect()
    }
}

/// Why a seed cannot be both a tuning seed and one of the comparison.
pub(crate) fn overlap(seed: u64) -> String {
    format!(
        "seed {seed} is also a seed of the sweep: tune with other seeds, because a choice made on \
         the seeds that are compared favours variants with lucky ones"
    )
}

/// Whether a table has a value at a dotted key.
fn has(value: &Value, key: &str) -> bool {
    key.split('.').try_fold(value, |value, part| value.get(part)).is_some()
}

/// The values of a key, which are distinct finite numbers.
fn numbers(values: &Value) -> Result<&[Value], String> {
    let list = values.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| format!("{values} is not a list of numbers"))?;
    let mut seen: Vec<f64> = Vec::new();
    for value in list {
        let number = value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64));
        let number = number
            .filter(|number| number.is_finite())
            .ok_or_else(|| format!("{value} is not a number: only numbers are tuned"))?;
        if seen.contains(&number) {
            return Err(format!("{value} is in the list twice"));
        }
        seen.push(number);
    }
    Ok(list)
}
