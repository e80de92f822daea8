//! The tables of a sweep's tuning.

use std::fmt::Write;

use super::load::SweepRuns;
use super::tables::{optional, unfinished};
use super::tuning::{GridPoint, Tuning};
use super::words::amount;
use crate::table::{cell, field};

/// The section of `sweep.md`.
pub(super) fn markdown(sweep: &SweepRuns, tuning: &Tuning) -> String {
    let mut out = String::from(
        "\n## Tuning\n\n\
         | variant | point of the grid | seeds | failed | area under the curve | standard error | tokens generated | |\n\
         |---|---|---:|---:|---:|---:|---:|---|\n",
    );
    for variant in &tuning.variants {
        for point in &variant.points {
            let _ = writeln!(
                out,
                "| {} | {} | {} |",
                cell(&variant.name),
                cell(&point_words(point)),
                figures(point).join(" | ")
            );
        }
    }
    let _ = writeln!(out, "\n{}", words(sweep, tuning));
    if !tuning.notes.is_empty() {
        let notes: Vec<String> =
            tuning.notes.iter().map(|note| format!("- {}\n", cell(note))).collect();
        let _ = write!(out, "\n{}", notes.concat());
    }
    let cells = sweep.tuning.iter().flat_map(|variant| &variant.cells);
    out + &unfinished("Tuning cells", cells)
}

/// One line per variant and point.
pub(super) fn csv(tuning: &Tuning) -> String {
    let mut out = String::from(
        "variant,point,seeds,planned,failed,area,standard_error,chosen,tokens_generated\n",
    );
    for variant in &tuning.variants {
        for point in &variant.points {
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{},{},{}",
                field(&variant.name),
                field(&point_words(point)),
                point.areas.len(),
                point.planned,
                point.failed,
                optional(point.mean),
                optional(point.standard_error),
                point.chosen,
                optional(Some(point.generated)),
            );
        }
    }
    out
}

/// The text below the table.
pub(super) fn words(sweep: &SweepRuns, tuning: &Tuning) -> String {
    tuning.words(sweep, &amount(tuning.generated))
}

pub(super) fn point_words(point: &GridPoint) -> String {
    point.overrides.join(", ")
}

/// Seeds, failed cells, area, standard error, tokens, and whether it was chosen.
pub(super) fn figures(point: &GridPoint) -> [String; 6] {
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"));
    [
        format!("{} of {}", point.areas.len(), point.planned),
        format!("{} of {}", point.failed, point.planned),
        number(point.mean),
        number(point.standard_error),
        amount(point.generated),
        if point.chosen { "chosen".to_owned() } else { String::new() },
    ]
}
