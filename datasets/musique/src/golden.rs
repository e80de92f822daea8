//! Golden file of the scorer: numbers of the official evaluator.

use std::path::Path;

use leyden_core::{Family, GoldenError, GoldenReport, golden_cases};
use serde::Deserialize;

use crate::metric::{answer_agreement, support_agreement};

#[derive(Deserialize)]
struct Case {
    prediction: String,
    golds: Vec<String>,
    em: f64,
    f1: f64,
    pred_support: Vec<i64>,
    gold_support: Vec<i64>,
    /// Exact match and F1.
    support: (f64, f64),
}

/// Compares the measures with a file of `{"prediction", "golds", "em", "f1", "pred_support",
/// "gold_support", "support": [em, f1]}`. Exact matches must be equal, F1 to 1e-12.
///
/// # Errors
/// If the file cannot be read or one of its lines is not a case.
pub fn check(path: impl AsRef<Path>) -> Result<GoldenReport, GoldenError> {
    let mut exact_match = Family::exact("answer exact match");
    let mut f1 = Family::numeric("answer F1", 1e-12);
    let mut support_match = Family::exact("support exact match");
    let mut support_f1 = Family::numeric("support F1", 1e-12);
    for case in golden_cases::<Case>(path.as_ref())? {
        let answer = answer_agreement(&case.prediction, case.golds.iter().map(String::as_str));
        let what = || {
            let (prediction, golds) = (&case.prediction, &case.golds);
            format!("{prediction:?} for {golds:?} gives {answer:?}")
        };
        exact_match.agree(answer.exact_match == case.em, what);
        f1.error((answer.f1 - case.f1).abs(), what);
        let support = support_agreement(&case.pred_support, &case.gold_support);
        let what =
            || format!("{:?} for {:?} gives {support:?}", case.pred_support, case.gold_support);
        support_match.agree(support.exact_match == case.support.0, what);
        support_f1.error((support.f1 - case.support.1).abs(), what);
    }
    Ok(GoldenReport { families: vec![exact_match, f1, support_match, support_f1] })
}
