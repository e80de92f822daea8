//! The calculator tool of Calc-X; its output matches the original to the digit.
//!
//! The original passes expressions to SymPy: Python's grammar, exact fractions, decimals of 53
//! bits. SymPy evaluates arbitrary Python, so this is a new implementation with only numbers,
//! operators and a few functions. Length, nesting, size of numbers and work are bounded, because
//! the expressions come from a model in training, which eventually writes `9**9**9**9`.
//!
//! Plain arithmetic agrees with the original in every character. Where SymPy would keep a
//! symbol (`sqrt(2) = around 1.414214`), this calculator returns only the decimal. Error messages
//! differ from the original; all begin with `ERROR: `.

mod float;
mod format;
mod function;
mod parse;
mod single;
mod token;
mod value;

use parse::Step;
pub use single::{calculate_single, is_single_operation, try_calculate_single};
use token::{Operator, Token};
pub use value::Value;

/// Maximum length of an expression, in bytes.
pub const MAX_LENGTH: usize = 20_000;
/// Maximum nesting of parentheses, as in Python's parser.
pub const MAX_DEPTH: usize = 200;
/// Maximum digits of an integer that is read or written, as in Python.
pub const MAX_DIGITS: usize = 4_300;
/// Maximum bits of an intermediate result.
const MAX_BITS: u64 = 1 << 16;
/// Work units allowed for one expression, about half a second.
const WORK: u64 = 1 << 28;

/// Why an expression has no value. The message is the tool's response.
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
    /// Only of the calculator with one operation a call.
    #[error("ERROR: one operation a call: write two numbers and one of + - * /")]
    NotSingle,
}

/// The tool's response to an expression: the result, or a message that begins with `ERROR: `.
/// Never panics, whatever the text.
pub fn calculate(expression: &str) -> String {
    try_calculate(expression).unwrap_or_else(|error| error.to_string())
}

/// Like [`calculate`], with a typed error.
///
/// # Errors
/// If the text is not a finite arithmetic expression within the limits.
pub fn try_calculate(expression: &str) -> Result<String, CalculatorError> {
    format::output(&evaluate(expression)?)
}

/// Evaluates an expression.
///
/// # Errors
/// Like [`try_calculate`]; a division by zero may also be returned as a non-numeric value.
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

/// Whether an expression has only numbers, parentheses and `+ - * / // % **`, for which every
/// output equals the original's.
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
    // The parser never emits a program that pops more values than it pushed.
    let mut pop = || stack.pop().ok_or(CalculatorError::Ends);
    match step {
        Step::Push(value) => Ok(value),
        Step::Constant(value) => Value::approximate(value),
        Step::Keep => pop(),
        Step::Negate => Ok(pop()?.negate()),
        Step::Invert => {
            let not_whole = || CalculatorError::NotWhole("~".to_owned());
            Ok(Value::integer(!pop()?.as_integer().ok_or_else(not_whole)?))
        }
        Step::Factorial => function::factorial(&pop()?, 1, budget),
        Step::DoubleFactorial => function::factorial(&pop()?, 2, budget),
        Step::Binary(op) => {
            let right = pop()?;
            value::apply(op, pop()?, right, budget)
        }
        Step::Call(function, count) => {
            let first = stack.len().checked_sub(count).ok_or(CalculatorError::Ends)?;
            function.call(stack.split_off(first), budget)
        }
    }
}

/// The remaining work units.
pub(crate) struct Budget(u64);

impl Budget {
    /// Charges an operation on numbers of `bits` bits in total. The cost is quadratic, like that of
    /// reducing a fraction.
    fn charge(&mut self, bits: u64) -> Result<(), CalculatorError> {
        let cost = 16 + bits.saturating_mul(bits) / 64;
        self.0 = self.0.checked_sub(cost).ok_or(CalculatorError::TooMuchWork)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
