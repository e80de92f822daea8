//! Compiles tokens to a program for a stack machine, by Python's expression grammar.
//!
//! Operator precedence with two explicit stacks (Dijkstra's shunting yard) instead of recursion,
//! so that nested input cannot exhaust the call stack.

use super::function::Function;
use super::token::{Operator, Placed, Token};
use super::value::Value;
use super::{CalculatorError, MAX_DEPTH};

type Result<T> = std::result::Result<T, CalculatorError>;

/// One instruction of the stack machine.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Push(Value),
    Constant(f64),
    Negate,
    /// Unary plus: a no-op.
    Keep,
    Invert,
    Factorial,
    DoubleFactorial,
    Binary(Operator),
    /// A function call with its number of arguments.
    Call(Function, usize),
}

/// A stack entry that lacks its right operand or its closing parenthesis.
enum Pending {
    Unary(Step),
    Binary(Operator),
    Group,
    Call { function: Function, arguments: usize },
}

/// Precedence of an operator, as in Python.
fn binding(op: Operator) -> u8 {
    match op {
        Operator::Or => 1,
        Operator::Xor => 2,
        Operator::And => 3,
        Operator::ShiftLeft | Operator::ShiftRight => 4,
        Operator::Add | Operator::Subtract => 5,
        Operator::Multiply | Operator::Divide | Operator::FloorDivide | Operator::Modulo => 6,
        Operator::Power => UNARY + 1,
    }
}

const UNARY: u8 = 7;

#[derive(Default)]
struct Parser {
    program: Vec<Step>,
    pending: Vec<Pending>,
    depth: usize,
}

/// Compiles tokens to a program that leaves one value on the stack.
pub(crate) fn program(tokens: &[Placed]) -> Result<Vec<Step>> {
    let mut parser = Parser::default();
    let mut operand_next = true;
    let mut position = 0;
    while let Some((at, token)) = tokens.get(position) {
        let next = tokens.get(position + 1).map(|(_, token)| token);
        if operand_next {
            if parser.empty_call(token) {
                operand_next = false;
            } else {
                operand_next = parser.operand(*at, token, next)?;
                // The opening parenthesis of a call is consumed with the name.
                let call = matches!(token, Token::Name(_)) && next == Some(&Token::Open);
                position += usize::from(call);
            }
        } else {
            operand_next = parser.operator(*at, token)?;
        }
        position += 1;
    }
    if operand_next {
        return Err(CalculatorError::Ends);
    }
    parser.unwind(0);
    match parser.pending.pop() {
        None => Ok(parser.program),
        Some(_) => Err(CalculatorError::Unclosed),
    }
}

impl Parser {
    /// Consumes a token where an operand may begin; true if one is still expected.
    fn operand(&mut self, at: usize, token: &Token, next: Option<&Token>) -> Result<bool> {
        match token {
            Token::Number(value) => self.program.push(Step::Push(value.clone())),
            Token::Name(name) if next == Some(&Token::Open) => {
                let function = Function::named(name)
                    .ok_or_else(|| CalculatorError::UnknownFunction(name.clone()))?;
                self.open(Pending::Call { function, arguments: 1 })?;
                return Ok(true);
            }
            Token::Name(name) => match name.as_str() {
                "pi" => self.program.push(Step::Constant(std::f64::consts::PI)),
                "E" => self.program.push(Step::Constant(std::f64::consts::E)),
                _ => return Err(CalculatorError::UnknownName(name.clone())),
            },
            Token::Open => {
                self.open(Pending::Group)?;
                return Ok(true);
            }
            Token::Operator(Operator::Subtract) => {
                self.pending.push(Pending::Unary(Step::Negate));
                return Ok(true);
            }
            Token::Operator(Operator::Add) => {
                self.pending.push(Pending::Unary(Step::Keep));
                return Ok(true);
            }
            Token::Invert => {
                self.pending.push(Pending::Unary(Step::Invert));
                return Ok(true);
            }
            Token::Operator(_) | Token::Factorial(_) | Token::Close | Token::Comma => {
                return Err(CalculatorError::OperandMissing { at });
            }
        }
        Ok(false)
    }

    /// Consumes a token after an operand; true if another operand must follow.
    fn operator(&mut self, at: usize, token: &Token) -> Result<bool> {
        match token {
            Token::Operator(op) => {
                let binding = binding(*op);
                // Powers are right-associative, all others left-associative.
                self.unwind(if *op == Operator::Power { binding + 1 } else { binding });
                self.pending.push(Pending::Binary(*op));
                Ok(true)
            }
            Token::Factorial(1) => {
                self.program.push(Step::Factorial);
                Ok(false)
            }
            Token::Factorial(2) => {
                self.program.push(Step::DoubleFactorial);
                Ok(false)
            }
            Token::Comma => {
                self.unwind(0);
                match self.pending.last_mut() {
                    Some(Pending::Call { arguments, .. }) => *arguments += 1,
                    _ => return Err(CalculatorError::Comma { at }),
                }
                Ok(true)
            }
            Token::Close => {
                self.unwind(0);
                self.depth = self.depth.saturating_sub(1);
                match self.pending.pop() {
                    Some(Pending::Call { function, arguments }) => {
                        self.program.push(Step::Call(function, arguments));
                    }
                    Some(_) => {}
                    None => return Err(CalculatorError::Unopened { at }),
                }
                Ok(false)
            }
            Token::Number(_)
            | Token::Name(_)
            | Token::Open
            | Token::Invert
            | Token::Factorial(_) => Err(CalculatorError::OperatorMissing { at }),
        }
    }

    /// Closes a call without arguments, `min()`, which the function will reject.
    fn empty_call(&mut self, token: &Token) -> bool {
        if *token != Token::Close {
            return false;
        }
        let Some(&Pending::Call { function, arguments: 1 }) = self.pending.last() else {
            return false;
        };
        self.pending.pop();
        self.depth = self.depth.saturating_sub(1);
        self.program.push(Step::Call(function, 0));
        true
    }

    fn open(&mut self, group: Pending) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CalculatorError::TooDeep);
        }
        self.pending.push(group);
        Ok(())
    }

    /// Emits the pending operators with a precedence of at least `least`, up to the innermost open
    /// parenthesis.
    fn unwind(&mut self, least: u8) {
        while let Some(top) = self.pending.last() {
            let tight = match top {
                Pending::Unary(_) => UNARY >= least,
                Pending::Binary(op) => binding(*op) >= least,
                Pending::Group | Pending::Call { .. } => false,
            };
            if !tight {
                return;
            }
            match self.pending.pop() {
                Some(Pending::Unary(step)) => self.program.push(step),
                Some(Pending::Binary(op)) => self.program.push(Step::Binary(op)),
                _ => return,
            }
        }
    }
}
