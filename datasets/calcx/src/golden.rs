//! Golden files of the calculator and the scorer: outputs of the original programs.

use std::path::Path;

use leyden_core::{Family, GoldenError, GoldenReport, golden_cases};
use serde::Deserialize;

use crate::calculator::{calculate, is_plain_arithmetic};
use crate::scorer::same_result;

#[derive(Deserialize)]
struct CalculatorCase {
    input: String,
    /// `None` if the original was not run.
    output: Option<String>,
}

/// Kind of the original's output for a case.
#[derive(PartialEq)]
enum Kind {
    Error,
    /// A symbol or a root with its decimal approximation.
    Symbolic,
    Number,
}

fn kind(output: &str) -> Kind {
    if output.starts_with("ERROR") {
        return Kind::Error;
    }
    let exact = output.split(" = around ").next().unwrap_or(output);
    let number = exact.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | '.' | '-' | '/'));
    if number || matches!(exact, "nan" | "inf" | "-inf") { Kind::Number } else { Kind::Symbolic }
}

/// Compares the calculator with a file of `{"input", "output"}`.
///
/// Families: plain arithmetic and other numbers must agree in every character, symbolic results to
/// 1e-6 of the approximation (or be an error), and where the original fails, this one must too.
///
/// # Errors
/// If the file cannot be read or one of its lines is not a case.
pub fn check_calculator(path: impl AsRef<Path>) -> Result<GoldenReport, GoldenError> {
    let mut plain = Family::exact("plain arithmetic");
    let mut other = Family::exact("functions and other operators");
    let mut symbolic = Family::numeric("symbolic", 1e-6);
    let mut errors = Family::exact("errors");
    for CalculatorCase { input, output } in golden_cases(path.as_ref())? {
        let Some(expected) = output else { continue };
        let ours = calculate(&input);
        let difference = || format!("{input} gives {ours}, expected {expected}");
        let rejected = ours.starts_with("ERROR: ");
        match kind(&expected) {
            Kind::Error => errors.agree(rejected, difference),
            Kind::Symbolic if rejected => symbolic.error(0.0, difference),
            Kind::Symbolic => symbolic.error(relative_error(&ours, &expected), difference),
            Kind::Number if is_plain_arithmetic(&input) => {
                plain.agree(ours == expected, difference);
            }
            Kind::Number => other.agree(ours == expected, difference),
        }
    }
    Ok(GoldenReport { families: vec![plain, other, symbolic, errors] })
}

/// Difference of the approximations of two outputs, relative if they exceed 1; NaN if either has
/// none.
fn relative_error(ours: &str, expected: &str) -> f64 {
    let approximation = |output: &str| {
        let last = output.rsplit(" = around ").next().unwrap_or(output);
        last.replace('_', "").parse::<f64>().unwrap_or(f64::NAN)
    };
    let (ours, expected) = (approximation(ours), approximation(expected));
    if ours == expected { 0.0 } else { (ours - expected).abs() / expected.abs().max(1.0) }
}

#[derive(Deserialize)]
struct ScorerCase {
    pred: String,
    gold: String,
    same: bool,
}

/// Compares the Calc-X rule with a file of `{"pred", "gold", "same"}`.
///
/// # Errors
/// If the file cannot be read or one of its lines is not a case.
pub fn check_calcx(path: impl AsRef<Path>) -> Result<GoldenReport, GoldenError> {
    let mut same = Family::exact("equal results");
    let mut different = Family::exact("different results");
    for case in golden_cases::<ScorerCase>(path.as_ref())? {
        let ours = same_result(&case.pred, &case.gold);
        let family = if case.same { &mut same } else { &mut different };
        family.agree(ours == case.same, || {
            format!("{:?} for {:?} is judged {ours}, expected {}", case.pred, case.gold, case.same)
        });
    }
    Ok(GoldenReport { families: vec![same, different] })
}
