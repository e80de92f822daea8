//! Output format of the calculator.
//!
//! Integers with `_` between thousands, decimals with at most six places and no trailing zeros,
//! fractions as `2/7 = around 0.285714`.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::float::{Float, PRECISION};
use super::value::{Kind, Value};
use super::{CalculatorError, MAX_DIGITS};

/// The tool output for a value.
pub(crate) fn output(value: &Value) -> Result<String, CalculatorError> {
    match &value.0 {
        Kind::Exact(exact) if exact.is_integer() => whole(exact.numer()),
        Kind::Exact(exact) => fraction(exact),
        Kind::Decimal(float) => Ok(decimal(float.to_f64())),
        Kind::Infinite => Err(CalculatorError::DivisionByZero),
        Kind::Undefined => Ok("nan = around nan".to_owned()),
    }
}

fn fraction(value: &BigRational) -> Result<String, CalculatorError> {
    let exact = format!("{}/{}", whole(value.numer())?, whole(value.denom())?);
    // The original first truncates after 57 bits and then rounds to 53.
    let approximation = Float::truncated(value, PRECISION + 4)?.to_f64();
    Ok(format!("{exact} = around {}", decimal(approximation)))
}

fn whole(value: &BigInt) -> Result<String, CalculatorError> {
    let too_long = || CalculatorError::TooLarge;
    // Check bits first, because decimal conversion is expensive.
    if value.bits() > MAX_DIGITS as u64 * 10 / 3 {
        return Err(too_long());
    }
    let text = value.to_string();
    if text.trim_start_matches('-').len() > MAX_DIGITS {
        return Err(too_long());
    }
    Ok(grouped(&text))
}

/// A decimal: six places, no trailing zeros, thousands grouped. `-0` keeps its sign.
fn decimal(value: f64) -> String {
    if !value.is_finite() {
        return format!("{value}").to_lowercase();
    }
    let text = format!("{value:.6}");
    let (whole, places) = text.split_once('.').unwrap_or((&text, ""));
    let places = places.trim_end_matches('0');
    let point = if places.is_empty() { "" } else { "." };
    format!("{}{point}{places}", grouped(whole))
}

/// Puts `_` between groups of three digits.
fn grouped(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 2);
    text.push_str(sign);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push('_');
        }
        text.push(digit);
    }
    text
}
