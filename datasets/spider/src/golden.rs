//! Golden files of the scorers: verdicts of the official evaluators.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use leyden_core::{Family, GoldenReport, golden_cases};
use rayon::prelude::*;
use serde::Deserialize;

use crate::database::{Limits, Workers};
use crate::exact::PARTS;
use crate::execution::{ExecutionError, Verdict, judge};
use crate::hardness::Hardness;
use crate::schema::TablesError;
use crate::spider::{MatchError, Matched, Spider};

/// Why a golden file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    #[error(transparent)]
    Cases(#[from] leyden_core::GoldenError),
    #[error(transparent)]
    Tables(#[from] TablesError),
}

#[derive(Deserialize)]
struct Golden {
    gold: String,
    pred: String,
    db_id: String,
    hardness: Hardness,
    pred_parsed: bool,
    exact_match: u8,
    partial_f1: BTreeMap<String, f64>,
    exec_match: u8,
}

/// The results of this crate for a case.
struct Ours {
    matched: Result<Matched, MatchError>,
    verdict: Result<Verdict, ExecutionError>,
}

/// Compares execution match, exact match, its parts and hardness with a JSONL file of
/// official verdicts. `databases` is a Spider folder or its folder of databases; see
/// [`Spider::open`].
///
/// # Errors
/// If the file or `tables.json` cannot be read, or a line is not a case.
pub fn check(
    path: impl AsRef<Path>,
    databases: impl AsRef<Path>,
    workers: Option<Arc<Workers>>,
) -> Result<GoldenReport, GoldenError> {
    let cases: Vec<Golden> = golden_cases(path.as_ref())?;
    let spider = Spider::open(databases, Limits::default())?.with_workers(workers);
    let judge_one = |case: &Golden| Ours {
        matched: spider.compare(&case.db_id, &case.gold, &case.pred),
        verdict: spider
            .databases()
            .get(&case.db_id)
            .map_err(ExecutionError::from)
            .and_then(|database| judge(&database, &case.gold, &case.pred)),
    };
    let ours: Vec<Ours> = cases.par_iter().map(judge_one).collect();
    let mut execution = Family::exact("exec_match");
    let mut exact = Family::exact("exact_match");
    let mut partials = Family::exact("partials");
    let mut hardness = Family::exact("hardness");
    for (case, ours) in cases.iter().zip(&ours) {
        let describe =
            |what: &str| format!("{what}: {:?} for {:?} on {}", case.pred, case.gold, case.db_id);
        let ran = ours.verdict.as_ref().is_ok_and(|v| v.matches() == (case.exec_match == 1));
        execution.agree(ran, || describe(&format!("{:?}", ours.verdict)));
        let Ok(matched) = &ours.matched else {
            for family in [&mut exact, &mut partials, &mut hardness] {
                family.agree(false, || describe(&format!("{:?}", ours.matched)));
            }
            continue;
        };
        hardness.agree(matched.hardness == case.hardness, || describe(matched.hardness.name()));
        let same =
            matched.exact.matches == (case.exact_match == 1) && matched.parsed == case.pred_parsed;
        exact.agree(same, || {
            describe(&format!("matches {}, parsed {}", matched.exact.matches, matched.parsed))
        });
        let differing: Vec<&str> = PARTS
            .iter()
            .zip(&matched.exact.parts)
            .filter(|(name, part)| {
                case.partial_f1.get(**name) != Some(&f64::from(u8::from(part.agrees)))
            })
            .map(|(name, _)| *name)
            .collect();
        partials.agree(differing.is_empty(), || describe(&differing.join(", ")));
    }
    Ok(GoldenReport { families: vec![execution, exact, partials, hardness] })
}
