//! The functions that an expression may call.
//!
//! Results that are fractions stay exact (`sqrt(16)`, `factorial(5)`, `log(1)`); where SymPy
//! would keep a symbol (`sqrt(2)`, `log(10)`) the value here is a decimal.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::value::{self, Kind, Value};
use super::{Budget, CalculatorError, Operator};

type Result<T> = std::result::Result<T, CalculatorError>;

/// Upper bound of n for factorials: the result has about the maximum number of bits.
const MAX_FACTORIAL: u32 = 5000;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    Absolute,
    SquareRoot,
    CubeRoot,
    Exponential,
    Logarithm,
    Factorial,
    Floor,
    Ceiling,
    Round,
    Minimum,
    Maximum,
    Power,
    GreatestDivisor,
    LeastMultiple,
    /// A function of one `f64`.
    Real(fn(f64) -> f64),
}

use Function::*;

impl Function {
    /// The function with a name from SymPy or Python.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "abs" | "Abs" => Absolute,
            "sqrt" => SquareRoot,
            "cbrt" => CubeRoot,
            "exp" => Exponential,
            "log" | "ln" => Logarithm,
            "factorial" => Factorial,
            "floor" => Floor,
            "ceiling" => Ceiling,
            "round" => Round,
            "min" | "Min" => Minimum,
            "max" | "Max" => Maximum,
            "pow" => Power,
            "gcd" => GreatestDivisor,
            "lcm" => LeastMultiple,
            "sin" => Real(f64::sin),
            "cos" => Real(f64::cos),
            "tan" => Real(f64::tan),
            "asin" => Real(f64::asin),
            "acos" => Real(f64::acos),
            "atan" => Real(f64::atan),
            "sinh" => Real(f64::sinh),
            "cosh" => Real(f64::cosh),
            "tanh" => Real(f64::tanh),
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Absolute => "abs",
            SquareRoot => "sqrt",
            CubeRoot => "cbrt",
            Exponential => "exp",
            Logarithm => "log",
            Factorial => "factorial",
            Floor => "floor",
            Ceiling => "ceiling",
            Round => "round",
            Minimum => "min",
            Maximum => "max",
            Power => "pow",
            GreatestDivisor => "gcd",
            LeastMultiple => "lcm",
            Real(_) => "a trigonometric function",
        }
    }

    /// Calls the function.
    pub fn call(self, arguments: Vec<Value>, budget: &mut Budget) -> Result<Value> {
        for argument in &arguments {
            budget.charge(argument.bits())?;
        }
        if arguments.iter().any(|a| a.0 == Kind::Undefined) {
            return Ok(Value(Kind::Undefined));
        }
        if arguments.iter().any(|a| a.0 == Kind::Infinite) {
            return Err(CalculatorError::DivisionByZero);
        }
        match (self, arguments.as_slice()) {
            (Absolute, [x]) => x.clone().absolute(),
            (SquareRoot, [x]) => root(x, 2, budget),
            (CubeRoot, [x]) => root(x, 3, budget),
            (Exponential, [x]) if is_exactly(x, 0) => Ok(Value::integer(1)),
            (Exponential, [x]) => real(x, f64::exp),
            (Logarithm, [x]) => logarithm(x),
            (Logarithm, [x, base]) => {
                value::apply(Operator::Divide, logarithm(x)?, logarithm(base)?, budget)
            }
            (Factorial, [x]) => factorial(x, 1, budget),
            (Floor, [x]) => Ok(Value::integer(x.to_rational()?.floor().to_integer())),
            (Ceiling, [x]) => Ok(Value::integer(x.to_rational()?.ceil().to_integer())),
            (Round, [x]) => Ok(Value::integer(half_even(&x.to_rational()?))),
            (Round, [x, places]) => round(x, places),
            (Minimum, [_, ..]) => extreme(&arguments, Ordering::Less),
            (Maximum, [_, ..]) => extreme(&arguments, Ordering::Greater),
            (Power, [x, n]) => value::apply(Operator::Power, x.clone(), n.clone(), budget),
            (GreatestDivisor, [a, b]) => Ok(Value::integer(whole(self, a)?.gcd(whole(self, b)?))),
            (LeastMultiple, [a, b]) => {
                Value::exact(BigRational::from_integer(whole(self, a)?.lcm(whole(self, b)?)))
            }
            (Real(f), [x]) => real(x, f),
            _ => Err(CalculatorError::Arguments { function: self.name(), given: arguments.len() }),
        }
    }
}

fn is_exactly(x: &Value, n: i64) -> bool {
    x.as_integer().is_some_and(|value| *value == BigInt::from(n))
}

fn whole(function: Function, x: &Value) -> Result<&BigInt> {
    x.as_integer().ok_or_else(|| CalculatorError::NotWhole(function.name().to_owned()))
}

fn real(x: &Value, f: fn(f64) -> f64) -> Result<Value> {
    Value::approximate(f(x.to_f64().unwrap_or(f64::NAN)))
}

fn root(x: &Value, degree: u32, budget: &mut Budget) -> Result<Value> {
    let exponent = BigRational::new(BigInt::one(), BigInt::from(degree));
    value::apply(Operator::Power, x.clone(), Value::exact(exponent)?, budget)
}

fn logarithm(x: &Value) -> Result<Value> {
    if is_exactly(x, 1) {
        return Ok(Value::integer(0));
    }
    let exact = x.to_rational()?;
    if exact.is_zero() {
        return Err(CalculatorError::DivisionByZero);
    }
    if exact.is_negative() {
        return Err(CalculatorError::NotReal);
    }
    real(x, f64::ln)
}

/// The product n·(n − step)·(n − 2·step)… down to 1; step 1 is `n!`, step 2 is `n!!`.
pub(crate) fn factorial(x: &Value, step: usize, budget: &mut Budget) -> Result<Value> {
    let exact = x.to_rational()?;
    if !exact.is_integer() || exact.is_negative() {
        return Err(CalculatorError::NotWhole("factorial".to_owned()));
    }
    let n = exact.numer().to_u32().filter(|&n| n <= MAX_FACTORIAL);
    let n = n.ok_or(CalculatorError::TooLarge)?;
    // n factors of up to 13 bits, multiplied into one number.
    budget.charge(u64::from(n) * 13)?;
    let product = (1..=n).rev().step_by(step).fold(BigInt::one(), |product, k| product * k);
    let exact = BigRational::from_integer(product);
    match &x.0 {
        Kind::Decimal(decimal) => {
            Ok(Value::decimal(super::float::Float::from_rational(&exact, decimal.precision())?))
        }
        _ => Value::exact(exact),
    }
}

/// Rounds to an integer, ties to even.
fn half_even(x: &BigRational) -> BigInt {
    let floor = x.floor().to_integer();
    let rest = x - BigRational::from_integer(floor.clone());
    let half = BigRational::new(BigInt::one(), BigInt::from(2));
    match rest.cmp(&half) {
        Ordering::Less => floor,
        Ordering::Equal if floor.is_even() => floor,
        _ => floor + 1,
    }
}

fn round(x: &Value, places: &Value) -> Result<Value> {
    let places = whole(Round, places)?.to_i32().filter(|p| p.unsigned_abs() <= 1000);
    let places = places.ok_or(CalculatorError::TooLarge)?;
    let scale = BigRational::from_integer(BigInt::from(10)).pow(places);
    let rounded = BigRational::from_integer(half_even(&(x.to_rational()? * &scale))) / scale;
    match &x.0 {
        Kind::Exact(exact) if exact.is_integer() => Value::exact(rounded),
        _ => Ok(Value::decimal(super::float::Float::from_rational(
            &rounded,
            super::float::PRECISION,
        )?)),
    }
}

/// The smallest or the largest argument; the first of equal ones.
fn extreme(arguments: &[Value], wanted: Ordering) -> Result<Value> {
    let mut best = &arguments[0];
    for argument in &arguments[1..] {
        if argument.compare(best)? == wanted {
            best = argument;
        }
    }
    Ok(best.clone())
}
