//! The calculator tool of Calc-X, with the output of the original to the digit.
//!
//! The original hands an expression to SymPy: Python's grammar, exact fractions, decimals of
//! 53 bits. That library evaluates whatever Python it is given, so this one is written anew
//! and knows numbers, operators and a few functions only. Everything is bounded (length,
//! nesting, size of numbers, work), because the expressions come from a model under
//! training, which sooner or later writes `9**9**9**9`.
//!
//! Plain arithmetic agrees with the original in every character. Where SymPy would keep a
//! symbol (`sqrt(2) = around 1.414214`), the answer here is the decimal alone. Error texts
//! are our own; all begin with `ERROR: `.

mod float;
mod format;
mod function;
mod parse;
mod token;
mod value;

use parse::Step;
use token::{Operator, Token};
pub use value::Value;

/// Longest expression, in bytes.
pub const MAX_LENGTH: usize = 20_000;
/// Deepest nesting of parentheses; Python's own parser allows no more.
pub const MAX_DEPTH: usize = 200;
/// Most digits of a whole number that is read or written; Python's own limit.
pub const MAX_DIGITS: usize = 4_300;
/// Most bits of a number on the way.
const MAX_BITS: u64 = 1 << 16;
/// Steps of work allowed for one expression, about half a second.
const WORK: u64 = 1 << 28;

/// Why an expression has no value. The text is what the tool answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalculatorError {
    #[error("ERROR: the expression has {0} characters, more than {MAX_LENGTH}")]
    TooLong(usize),
    #[error("ERROR: parentheses are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("ERROR: a number on the way is too large")]
    TooLarge,
    #[error("ERROR: the expression takes too long to evaluate")]
    TooMuchWork,
    #[error("ERROR: the character {found:?} at position {at} cannot be used in an expression")]
    Character { found: char, at: usize },
    #[error("ERROR: a number is missing at position {at}")]
    OperandMissing { at: usize },
    #[error("ERROR: an operator is missing at position {at}")]
    OperatorMissing { at: usize },
    #[error("ERROR: the comma at position {at} does not separate arguments of a function")]
    Comma { at: usize },
    #[error("ERROR: the parenthesis closed at position {at} was never opened")]
    Unopened { at: usize },
    #[error("ERROR: a parenthesis is not closed")]
    Unclosed,
    #[error("ERROR: the expression ends where a number is expected")]
    Ends,
    #[error("ERROR: the name {0} has no value")]
    UnknownName(String),
    #[error("ERROR: the function {0} is not known")]
    UnknownFunction(String),
    #[error("ERROR: {function} cannot be called with {given} arguments")]
    Arguments { function: &'static str, given: usize },
    #[error("ERROR: {0} takes whole numbers only")]
    NotWhole(String),
    #[error("ERROR: the result is not a real number")]
    NotReal,
    #[error("ERROR: division by zero")]
    DivisionByZero,
}

/// What the tool answers to an expression: the result, or a sentence that begins with
/// `ERROR: `. Never fails and never panics, whatever the text.
pub fn calculate(expression: &str) -> String {
    try_calculate(expression).unwrap_or_else(|error| error.to_string())
}

/// As [`calculate`], with the error apart.
///
/// # Errors
/// Everything that is not a finite arithmetic expression within the limits.
pub fn try_calculate(expression: &str) -> Result<String, CalculatorError> {
    format::output(&evaluate(expression)?)
}

/// Evaluates an expression.
///
/// # Errors
/// As [`try_calculate`]; a division by zero may also come back as a value without a number.
pub fn evaluate(expression: &str) -> Result<Value, CalculatorError> {
    let expression = expression.trim();
    if expression.len() > MAX_LENGTH {
        return Err(CalculatorError::TooLong(expression.len()));
    }
    let program = parse::program(&token::tokens(expression)?)?;
    let mut budget = Budget(WORK);
    let mut stack = Vec::new();
    for step in program {
        let value = run(step, &mut stack, &mut budget)?;
        stack.push(value);
    }
    stack.pop().ok_or(CalculatorError::Ends)
}

/// Whether an expression is made of numbers, parentheses and `+ - * / // % **` only: the part
/// in which every output is the original's.
pub fn is_plain_arithmetic(expression: &str) -> bool {
    let plain = |token: &Token| match token {
        Token::Number(_) | Token::Open | Token::Close => true,
        Token::Operator(op) => matches!(
            op,
            Operator::Add
                | Operator::Subtract
                | Operator::Multiply
                | Operator::Divide
                | Operator::FloorDivide
                | Operator::Modulo
                | Operator::Power
        ),
        _ => false,
    };
    token::tokens(expression.trim()).is_ok_and(|all| all.iter().all(|(_, token)| plain(token)))
}

fn run(step: Step, stack: &mut Vec<Value>, budget: &mut Budget) -> Result<Value, CalculatorError> {
    // The parser leaves no program that takes more than it has put there.
    let mut take = || stack.pop().ok_or(CalculatorError::Ends);
    match step {
        Step::Push(value) => Ok(value),
        Step::Constant(value) => Value::approximate(value),
        Step::Keep => take(),
        Step::Negate => Ok(take()?.negate()),
        Step::Invert => {
            let not_whole = || CalculatorError::NotWhole("~".to_owned());
            Ok(Value::integer(!take()?.as_integer().ok_or_else(not_whole)?))
        }
        Step::Factorial => function::factorial(&take()?, 1, budget),
        Step::DoubleFactorial => function::factorial(&take()?, 2, budget),
        Step::Binary(op) => {
            let right = take()?;
            value::apply(op, take()?, right, budget)
        }
        Step::Call(function, count) => {
            let first = stack.len().checked_sub(count).ok_or(CalculatorError::Ends)?;
            function.call(stack.split_off(first), budget)
        }
    }
}

/// What is left of the work allowed.
pub(crate) struct Budget(u64);

impl Budget {
    /// Pays for an operation on numbers of so many bits together: quadratic, as reducing a
    /// fraction is.
    fn charge(&mut self, bits: u64) -> Result<(), CalculatorError> {
        let cost = 16 + bits.saturating_mul(bits) / 64;
        self.0 = self.0.checked_sub(cost).ok_or(CalculatorError::TooMuchWork)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
