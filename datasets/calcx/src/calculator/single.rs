//! The calculator with one operation a call.
//!
//! With it, a problem of several operations takes as many calls, and each result has to be copied
//! into the next call. What it accepts is a part of what [`calculate`](super::calculate) accepts,
//! with the same output.

use super::token::{Operator, Placed, Token, tokens};
use super::{CalculatorError, MAX_LENGTH, try_calculate};

/// The tool's response to one binary operation `+ - * /` on two numbers, each with or without a
/// minus sign: the result, or a message that begins with `ERROR: ` for any other text. Never
/// panics, whatever the text.
pub fn calculate_single(expression: &str) -> String {
    try_calculate_single(expression).unwrap_or_else(|error| error.to_string())
}

/// Like [`calculate_single`], with a typed error.
///
/// # Errors
/// [`CalculatorError::NotSingle`] if the text is not a single operation on two numbers; otherwise
/// like [`try_calculate`].
pub fn try_calculate_single(expression: &str) -> Result<String, CalculatorError> {
    if !is_single_operation(expression) {
        return Err(CalculatorError::NotSingle);
    }
    try_calculate(expression)
}

/// Whether the text is one binary operation `+ - * /` on two numbers, each with or without a minus
/// sign, without parentheses.
pub fn is_single_operation(expression: &str) -> bool {
    let expression = expression.trim();
    // Read only what could be an expression, as the calculator does.
    if expression.len() > MAX_LENGTH {
        return false;
    }
    let Ok(found) = tokens(expression) else { return false };
    let Some([(_, Token::Operator(op)), rest @ ..]) = after_number(&found) else { return false };
    use Operator::{Add, Divide, Multiply, Subtract};
    matches!(op, Add | Subtract | Multiply | Divide)
        && after_number(rest).is_some_and(<[Placed]>::is_empty)
}

/// The tokens after a number that may have a minus sign; `None` if there is no number.
fn after_number(tokens: &[Placed]) -> Option<&[Placed]> {
    match tokens {
        [(_, Token::Number(_)), rest @ ..] => Some(rest),
        [(_, Token::Operator(Operator::Subtract)), (_, Token::Number(_)), rest @ ..] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calculate;

    proptest! {
        #[test]
        fn two_numbers_and_an_operation_give_what_the_calculator_gives(
            left in -99_999_i64..99_999,
            right in -99_999_i64..99_999,
            operator in prop::sample::select(vec!['+', '-', '*', '/']),
        ) {
            let expression = format!("{left} {operator} {right}");
            prop_assert!(is_single_operation(&expression));
            prop_assert_eq!(calculate_single(&expression), calculate(&expression));
            // Three numbers are too many.
            let longer = format!("{expression} {operator} {right}");
            prop_assert!(!is_single_operation(&longer));
        }

        #[test]
        fn other_texts_are_refused_or_give_what_the_calculator_gives(
            tokens in prop::collection::vec(
                prop::sample::select(vec![
                    "1", "20", ".5", "1e9", "(", ")", "+", "-", "*", "/", "**", "//", "%", "!",
                    "sqrt(", ",", " ", "pi", "é",
                ]),
                0..8,
            ),
        ) {
            let text = tokens.concat();
            let output = calculate_single(&text);
            let refused = output == CalculatorError::NotSingle.to_string();
            prop_assert!(refused || output == calculate(&text), "{text}: {output}");
        }
    }

    #[test]
    fn one_operation_on_two_numbers_gives_what_the_calculator_gives() {
        for expression in [
            "12 + 7",
            "12-7",
            " 3*4 ",
            "7 / 2",
            "-3 + 4",
            "3 - -4",
            "-3*-4",
            "1_200 / 7",
            "2.5 * 4",
            "1/3",
        ] {
            assert_eq!(calculate_single(expression), calculate(expression), "{expression}");
            assert!(!calculate_single(expression).starts_with("ERROR"), "{expression}");
        }
        // The error of the operation itself is the calculator's.
        assert_eq!(calculate_single("1 / 0"), "ERROR: division by zero");
    }

    #[test]
    fn anything_else_is_an_error_that_says_what_to_write() {
        let long = format!("1 + {}", "1".repeat(MAX_LENGTH));
        for expression in [
            "",
            "12",
            "-12",
            "1 + 2 + 3",
            "(1 + 2)",
            "(1) + 2",
            "1 + (-2)",
            "+1 + 2",
            "1 + +2",
            "--1 + 2",
            "1 +",
            "+",
            "1 2",
            "2 ** 3",
            "7 // 2",
            "7 % 2",
            "1 & 2",
            "sqrt(4)",
            "pi * 2",
            "3!",
            "1 + 2!",
            "1 = 1",
            "$",
            "1, 2",
            &long,
        ] {
            let output = calculate_single(expression);
            assert_eq!(
                output, "ERROR: one operation a call: write two numbers and one of + - * /",
                "{expression}"
            );
        }
    }
}
