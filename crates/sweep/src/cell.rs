//! Expands a sweep file into its cells.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::error::SweepError;
use crate::file::{ReportSettings, SweepFile, flatten, key};
use crate::tune::Plan;

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Base name of the cell's files; unique in the sweep.
    pub id: String,
    pub variant: String,
    pub seed: u64,
    /// The cell's overrides of the base experiment, as `key=TOML value`, in order.
    pub overrides: Vec<String>,
    /// Of a tuning cell: its point of the grid, which is also at the end of `overrides`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Vec<String>>,
}

/// An expanded sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Valid as a folder name.
    pub name: String,
    /// Whether the sweep file sets the name; otherwise it is derived from the file name.
    pub name_is_written: bool,
    /// The sweep file and its text.
    pub path: PathBuf,
    pub text: String,
    /// The base experiment and its text.
    pub base: PathBuf,
    pub base_text: String,
    /// Names of the variants, in the order of the file.
    pub variants: Vec<String>,
    pub baseline: String,
    /// Ordered by seed, each with all variants, so that a sweep stopped half-way has compared all
    /// variants on the finished seeds. In a sweep with tuning they run with the point of the grid
    /// that is chosen for their variant ([`crate::Choice`]), which is not among their overrides.
    pub cells: Vec<Cell>,
    /// The tuning cells, variant by variant and in each point by point; empty without `[tune]`.
    pub tuning: Vec<Cell>,
    pub report: ReportSettings,
}

impl Sweep {
    /// Reads a sweep file and its base and expands it; `seeds` replaces those of the file.
    ///
    /// # Errors
    /// Errors in the file itself, with the key: missing files, duplicate seeds or names, a
    /// baseline that is not a variant, tuning seeds that are also seeds of the sweep.
    /// [`crate::check`] validates the cells' experiments.
    pub fn read(path: &Path, seeds: Option<&[u64]>) -> Result<Self, SweepError> {
        let text = std::fs::read_to_string(path).map_err(|error| SweepError::file(path, error))?;
        let file = SweepFile::parse(&text, path)?;
        let base = path.parent().unwrap_or(Path::new("")).join(&file.base);
        let base_text = std::fs::read_to_string(&base)
            .map_err(|error| key(path, "base", format!("{}: {error}", base.display())))?;
        let seeds = match seeds {
            Some(seeds) => seeds.to_vec(),
            None => file.seeds(path)?.unwrap_or_else(|| vec![1]),
        };
        let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        let name = file_name(file.name.as_deref().unwrap_or(&stem));
        if name.is_empty() || name.starts_with('.') {
            return Err(key(path, "name", format!("`{name}` is not a valid folder name")));
        }
        let plan = Plan::of(&file, &seeds, path)?;
        let variants = variants(&file, plan.as_ref(), path)?;
        let names: Vec<String> = variants.iter().map(|variant| variant.name.clone()).collect();
        let baseline = file.baseline.clone().unwrap_or_else(|| names[0].clone());
        if !names.contains(&baseline) {
            let what = format!("`{baseline}` is none of the variants: {}", names.join("; "));
            return Err(key(path, "baseline", what));
        }
        let cell = |seed: u64, variant: &Variant| {
            let folder = file_name(&variant.name);
            let mut overrides = vec![format!("name={:?}", format!("{name}-{folder}"))];
            overrides.extend(variant.overrides.iter().cloned());
            let id = format!("{folder}-seed{seed}");
            Cell { id, variant: variant.name.clone(), seed, overrides, point: None }
        };
        let tuning = |plan: &Plan| -> Vec<Cell> {
            let cells = |Variant { name: own, overrides }: &Variant| {
                plan.cells(&name, own, &file_name(own), overrides)
            };
            variants.iter().flat_map(cells).collect()
        };
        let tuning = plan.as_ref().map_or_else(Vec::new, tuning);
        let of_seed = |seed: &u64| variants.iter().map(|variant| cell(*seed, variant)).collect();
        let cells: Vec<Vec<Cell>> = seeds.iter().map(of_seed).collect();
        Ok(Self {
            name,
            name_is_written: file.name.is_some(),
            path: path.to_owned(),
            text,
            base,
            base_text,
            variants: names,
            baseline,
            cells: cells.concat(),
            tuning,
            report: file.report,
        })
    }
}

/// A variant with all its overrides.
struct Variant {
    name: String,
    overrides: Vec<String>,
}

/// The variants of the file, each with every combination of the grid.
fn variants(
    file: &SweepFile,
    plan: Option<&Plan>,
    path: &Path,
) -> Result<Vec<Variant>, SweepError> {
    let grid = combinations(file, path)?;
    let listed: Vec<(&str, Vec<(String, Value)>)> = if file.variant.is_empty() {
        vec![("", Vec::new())]
    } else {
        file.variant.iter().map(|entry| (entry.name.as_str(), flatten(&entry.set))).collect()
    };
    if file.variant.iter().any(|entry| entry.name.trim().is_empty()) {
        return Err(key(path, "variant", "there is a variant without a name".to_owned()));
    }
    let fixed = flatten(&file.set);
    let mut found = Vec::new();
    for (listed_name, own) in &listed {
        for (point, values) in &grid {
            let names = [*listed_name, point.as_str()];
            let parts: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
            let name = if parts.is_empty() { "base".to_owned() } else { parts.join(", ") };
            let folder = file_name(&name);
            if folder.is_empty() || folder.starts_with(['.', '-']) {
                return Err(variant(path, &name, "a variant needs a name that can name a folder"));
            }
            if name.chars().any(char::is_control) {
                return Err(variant(path, &name, "a name must be on one line"));
            }
            let all: Vec<&(String, Value)> = fixed.iter().chain(own).chain(values).collect();
            if let Some((reserved, _)) = all.iter().find(|(key, _)| is_reserved(key)) {
                let what = format!("`{reserved}` is set by the sweep: use seeds and name");
                return Err(variant(path, &name, &what));
            }
            if let Some(tuned) = all.iter().find_map(|(key, value)| plan?.tuned(key, value)) {
                let what = format!("sets `{tuned}`, which [tune.grid] tunes: remove one of them");
                return Err(variant(path, &name, &what));
            }
            // Later values override earlier ones, which are dropped to shorten the command.
            let last = |index: usize| !all[index + 1..].iter().any(|(key, _)| *key == all[index].0);
            let overrides = (0..all.len())
                .filter(|index| last(*index))
                .map(|index| format!("{}={}", all[index].0, all[index].1))
                .collect();
            found.push(Variant { name, overrides });
        }
    }
    distinct_names(&found, path)?;
    Ok(found)
}

fn is_reserved(key: &str) -> bool {
    key == "seed" || key == "name"
}

fn variant(path: &Path, variant: &str, what: &str) -> SweepError {
    SweepError::Variant {
        path: path.to_owned(),
        variant: variant.to_owned(),
        what: what.to_owned(),
    }
}

/// Names must also be distinct as folders on case-insensitive file systems.
fn distinct_names(variants: &[Variant], path: &Path) -> Result<(), SweepError> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for entry in variants {
        let folder = file_name(&entry.name).to_lowercase();
        if let Some(other) = seen.insert(folder, &entry.name) {
            let what = format!("collides with `{other}`: their folders would be the same");
            return Err(variant(path, &entry.name, &what));
        }
    }
    Ok(())
}

/// A point of the grid: its name and its overrides.
type Point = (String, Vec<(String, Value)>);

/// Every combination of the grid's values, with its name; a single empty one without a grid.
fn combinations(file: &SweepFile, path: &Path) -> Result<Vec<Point>, SweepError> {
    let axes = flatten(&file.grid);
    // The last part of a key suffices if no other key has the same last part.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let mut points: Vec<Point> = vec![(String::new(), Vec::new())];
    for (axis, values) in &axes {
        let grid_key = format!("grid.{axis}");
        let values = values
            .as_array()
            .filter(|values| !values.is_empty())
            .ok_or_else(|| key(path, &grid_key, "must be a list of values".to_owned()))?;
        let alike = axes.iter().filter(|(other, _)| last(other) == last(axis)).count();
        let short = if alike == 1 { last(axis) } else { axis.clone() };
        let extended = |point: &Point| -> Vec<Point> {
            let with = |value: &Value| {
                let mut set = point.1.clone();
                set.push((axis.clone(), value.clone()));
                let own = format!("{short}={}", plain(value));
                let name = if point.0.is_empty() { own } else { format!("{}, {own}", point.0) };
                (name, set)
            };
            values.iter().map(with).collect()
        };
        points = points.iter().flat_map(extended).collect();
    }
    Ok(points)
}

/// A value as part of a name: strings without quotes, tagged tables by their `name`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Table(table) if table.len() == 1 && table.contains_key("name") => {
            plain(&table["name"])
        }
        other => other.to_string(),
    }
}

/// Converts a name to one that is valid for folders and experiments.
pub(crate) fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' };
    let text: String = name.chars().map(safe).take(100).collect();
    text.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}
