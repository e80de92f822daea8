//! Validates all cells before the first one runs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::cell::Cell;
use crate::error::SweepError;
use crate::folder::SweepFolder;

/// Revision of the program, as recorded in a run's `provenance.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Revision {
    /// Version of the program.
    pub leyden: Option<String>,
    pub git_revision: Option<String>,
    /// Hash of the uncommitted changes.
    pub git_diff_sha256: Option<String>,
}

impl Revision {
    /// The revision that started a run; `None` if it is not recorded.
    pub fn of_run(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("provenance.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The revision in human-readable form.
    pub fn words(&self) -> String {
        let revision = self.git_revision.as_deref().or(self.leyden.as_deref());
        let revision: String = revision.unwrap_or("unknown").chars().take(12).collect();
        match &self.git_diff_sha256 {
            None => revision,
            Some(hash) => {
                let hash: String = hash.chars().take(8).collect();
                format!("{revision} with changes {hash}")
            }
        }
    }
}

/// Rejects cells that cannot run or whose run folder does not match. `resolve` returns the
/// configuration of a cell as a run would write it, or an error message; `rewrite` converts a
/// configuration written by an older version to today's format; `here` is the current revision,
/// `None` to accept cells of any revision.
///
/// # Errors
/// The first cell whose experiment is invalid, two variants that are the same experiment, or a
/// run folder of another configuration or revision.
pub fn check(
    folder: &SweepFolder,
    sweep_file: &Path,
    cells: &[Cell],
    resolve: &dyn Fn(&Cell) -> Result<String, String>,
    rewrite: &dyn Fn(&str) -> String,
    here: Option<&Revision>,
) -> Result<(), SweepError> {
    let refuse = |cell: &Cell, what: String| SweepError::Variant {
        path: sweep_file.to_owned(),
        variant: cell.variant.clone(),
        what,
    };
    let mut seen: HashMap<String, &Cell> = HashMap::new();
    let mut resolved = Vec::with_capacity(cells.len());
    for cell in cells {
        let text = resolve(cell).map_err(|what| match &cell.point {
            Some(point) => {
                refuse(cell, format!("with {} of [tune.grid]: {what}", point.join(", ")))
            }
            None => refuse(cell, what),
        })?;
        if let Some(other) = seen.insert(without_name(&text), cell) {
            let what = match (&other.point, &cell.point) {
                (Some(one), Some(point)) if other.variant == cell.variant => format!(
                    "{} and {} of [tune.grid] are the same experiment: remove one",
                    one.join(", "),
                    point.join(", ")
                ),
                _ => format!("is the same experiment as `{}`: remove one", other.variant),
            };
            return Err(refuse(cell, what));
        }
        resolved.push(text);
    }
    for (cell, text) in cells.iter().zip(&resolved) {
        check_run(folder, cell, text, rewrite, here)?;
    }
    Ok(())
}

/// Removes the name of an experiment, which is irrelevant for equality.
fn without_name(config: &str) -> String {
    let parsed: Result<toml::Table, _> = config.parse();
    parsed.map_or_else(
        |_| config.to_owned(),
        |mut table| {
            table.remove("name");
            table.to_string()
        },
    )
}

fn check_run(
    folder: &SweepFolder,
    cell: &Cell,
    text: &str,
    rewrite: &dyn Fn(&str) -> String,
    here: Option<&Revision>,
) -> Result<(), SweepError> {
    let path = folder.run_folder(cell);
    let config = path.join("config.toml");
    let before = match fs::read_to_string(&config) {
        Ok(before) => rewrite(&before),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SweepError::file(config, error)),
    };
    if before != *text {
        let differs = before.lines().zip(text.lines()).find(|(old, new)| old != new);
        let what = differs
            .map_or_else(String::new, |(old, new)| format!(" (it has `{old}`, the cell `{new}`)"));
        return Err(SweepError::OtherConfiguration { cell: cell.id.clone(), path, what });
    }
    match (here, Revision::of_run(&path)) {
        (Some(here), Some(found)) if found != *here => Err(SweepError::OtherRevision {
            cell: cell.id.clone(),
            path,
            found: found.words(),
            here: here.words(),
        }),
        _ => Ok(()),
    }
}
