//! The values of the calculator and the operators on them.
//!
//! Integers and fractions are exact; any decimal operand makes a result decimal. The corner cases
//! follow SymPy, whose outputs are the reference: a decimal result that is exactly zero becomes
//! the integer 0, a division by zero is a value (`zoo`) that can disappear again (`1 / (1/0)` is
//! 0), and zero divided by zero is not a number.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::float::Float;
use super::token::Operator;
use super::{Budget, CalculatorError, MAX_BITS};

type Result<T> = std::result::Result<T, CalculatorError>;

/// A value of the calculator.
#[derive(Debug, Clone, PartialEq)]
pub struct Value(pub(crate) Kind);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Exact(BigRational),
    Decimal(Float),
    /// Result of a division by zero: SymPy's complex infinity.
    Infinite,
    /// Result of `0/0`.
    Undefined,
}

use Kind::{Decimal, Exact, Infinite, Undefined};

impl Value {
    pub(crate) fn integer(value: impl Into<BigInt>) -> Self {
        Self(Exact(BigRational::from_integer(value.into())))
    }

    pub(crate) fn exact(value: BigRational) -> Result<Self> {
        if value.numer().bits().max(value.denom().bits()) > MAX_BITS {
            return Err(CalculatorError::TooLarge);
        }
        Ok(Self(Exact(value)))
    }

    /// The result of decimal arithmetic: a zero becomes exact.
    pub(crate) fn decimal(value: Float) -> Self {
        if value.is_zero() { Self::integer(0) } else { Self(Decimal(value)) }
    }

    /// A result computed in `f64`.
    pub(crate) fn approximate(value: f64) -> Result<Self> {
        if value.is_nan() {
            return Err(CalculatorError::NotReal);
        }
        Float::from_f64(value).map(Self::decimal).ok_or(CalculatorError::TooLarge)
    }

    /// The nearest `f64`; NaN for `0/0`, `None` for a division by zero.
    pub fn to_f64(&self) -> Option<f64> {
        match &self.0 {
            Exact(value) => Float::from_rational(value, super::float::PRECISION)
                .ok()
                .map(|float| float.to_f64()),
            Decimal(value) => Some(value.to_f64()),
            Infinite => None,
            Undefined => Some(f64::NAN),
        }
    }

    /// The value as an integer, if it is one.
    pub(crate) fn as_integer(&self) -> Option<&BigInt> {
        match &self.0 {
            Exact(value) if value.is_integer() => Some(value.numer()),
            _ => None,
        }
    }

    /// The exact value of a finite number.
    pub(crate) fn to_rational(&self) -> Result<BigRational> {
        match &self.0 {
            Exact(value) => Ok(value.clone()),
            Decimal(value) => value.to_rational(),
            Infinite | Undefined => Err(CalculatorError::DivisionByZero),
        }
    }

    pub(crate) fn bits(&self) -> u64 {
        match &self.0 {
            Exact(value) => value.numer().bits() + value.denom().bits(),
            Decimal(value) => value.bits().max(value.precision()),
            Infinite | Undefined => 1,
        }
    }

    fn is_zero(&self) -> bool {
        match &self.0 {
            Exact(value) => value.is_zero(),
            Decimal(value) => value.is_zero(),
            Infinite | Undefined => false,
        }
    }

    fn is_negative(&self) -> bool {
        match &self.0 {
            Exact(value) => value.is_negative(),
            Decimal(value) => value.is_negative(),
            Infinite | Undefined => false,
        }
    }

    pub(crate) fn negate(self) -> Self {
        Self(match self.0 {
            Exact(value) => Exact(-value),
            Decimal(value) => Decimal(value.neg()),
            other => other,
        })
    }

    pub(crate) fn absolute(self) -> Result<Self> {
        match self.0 {
            Exact(value) => Ok(Self(Exact(value.abs()))),
            Decimal(value) => Ok(Self(Decimal(value.abs()))),
            Infinite => Err(CalculatorError::DivisionByZero),
            Undefined => Ok(Self(Undefined)),
        }
    }

    /// Order by exact value.
    pub(crate) fn compare(&self, other: &Self) -> Result<Ordering> {
        Ok(self.to_rational()?.cmp(&other.to_rational()?))
    }
}

/// Applies a binary operator.
pub(crate) fn apply(op: Operator, a: Value, b: Value, budget: &mut Budget) -> Result<Value> {
    budget.charge(a.bits() + b.bits())?;
    match op {
        Operator::Add => add(a, b),
        Operator::Subtract => add(a, b.negate()),
        Operator::Multiply => multiply(a, b),
        Operator::Divide => divide(a, b),
        Operator::FloorDivide => floor_divide(a, b),
        Operator::Modulo => modulo(a, b),
        Operator::Power => power(a, b, budget),
        Operator::ShiftLeft | Operator::ShiftRight => shift(op, &a, &b),
        Operator::And | Operator::Or | Operator::Xor => bitwise(op, &a, &b),
    }
}

/// `x` as a decimal, for arithmetic with one of `precision` bits.
fn widened(x: &BigRational, precision: u64) -> Result<Float> {
    Float::from_rational(x, precision)
}

fn add(a: Value, b: Value) -> Result<Value> {
    match (a.0, b.0) {
        (Undefined, _) | (_, Undefined) | (Infinite, Infinite) => Ok(Value(Undefined)),
        (Infinite, _) | (_, Infinite) => Ok(Value(Infinite)),
        (Exact(a), Exact(b)) => Value::exact(a + b),
        (Decimal(a), Decimal(b)) => Ok(Value::decimal(a.add(&b)?)),
        (Decimal(a), Exact(b)) | (Exact(b), Decimal(a)) => {
            Ok(Value::decimal(a.add(&widened(&b, a.precision())?)?))
        }
    }
}

fn multiply(a: Value, b: Value) -> Result<Value> {
    if matches!((&a.0, &b.0), (Infinite, _) | (_, Infinite)) && (a.is_zero() || b.is_zero()) {
        return Ok(Value(Undefined));
    }
    match (a.0, b.0) {
        (Undefined, _) | (_, Undefined) => Ok(Value(Undefined)),
        (Infinite, _) | (_, Infinite) => Ok(Value(Infinite)),
        (Exact(a), Exact(b)) => Value::exact(a * b),
        (Decimal(a), Decimal(b)) => Ok(Value::decimal(a.mul(&b)?)),
        (Decimal(a), Exact(b)) | (Exact(b), Decimal(a)) => {
            Ok(Value::decimal(a.mul(&widened(&b, a.precision())?)?))
        }
    }
}

/// The quotient. A fraction over a decimal is the fraction times the rounded reciprocal, two
/// roundings, because that is how SymPy divides.
fn divide(a: Value, b: Value) -> Result<Value> {
    let by_zero = |a: Value| {
        let undefined = a.is_zero() || a.0 == Undefined;
        Ok(Value(if undefined { Undefined } else { Infinite }))
    };
    match (a.0, b.0) {
        (Undefined, _) | (_, Undefined) | (Infinite, Infinite) => Ok(Value(Undefined)),
        (_, Infinite) => Ok(Value::integer(0)),
        (Infinite, _) => Ok(Value(Infinite)),
        (a, Exact(b)) if b.is_zero() => by_zero(Value(a)),
        (Exact(a), Exact(b)) => Value::exact(a / b),
        (Decimal(a), Exact(b)) => Ok(Value::decimal(a.div(&widened(&b, a.precision())?)?)),
        (Decimal(a), Decimal(b)) => Ok(Value::decimal(a.div(&b)?)),
        (Exact(a), Decimal(b)) if b.is_zero() => by_zero(Value(Exact(a))),
        (Exact(a), Decimal(b)) => {
            let reciprocal = b.powi(-1)?;
            Ok(Value::decimal(reciprocal.mul(&widened(&a, b.precision())?)?))
        }
    }
}

fn floor_divide(a: Value, b: Value) -> Result<Value> {
    match (a.0, b.0) {
        (Exact(a), b) if a.is_integer() && b != Infinite && b != Undefined => {
            if Value(b.clone()).is_zero() {
                return Err(CalculatorError::DivisionByZero);
            }
            floor_divide_whole(&a, b)
        }
        // SymPy truncates a fraction before it divides it by an integer.
        (Exact(a), Exact(b)) if b.is_integer() => {
            floor_divide(Value(Exact(a.trunc())), Value(Exact(b)))
        }
        (a, b) => match divide(Value(a), Value(b))?.0 {
            Exact(quotient) => Ok(Value(Exact(quotient.floor()))),
            Decimal(quotient) => Ok(Value::integer(quotient.floor()?)),
            other => Ok(Value(other)),
        },
    }
}

/// Floor division of an integer. Between integers this is the floor. Otherwise SymPy truncates the
/// quotient, subtracts one if it is negative, and undoes that only if the remainder equals a
/// decimal divisor: `-4 // (1/2)` is -9 in SymPy and here.
fn floor_divide_whole(a: &BigRational, b: Kind) -> Result<Value> {
    let b = match b {
        Exact(b) if b.is_integer() => return Ok(Value(Exact((a / b).floor()))),
        other => Value(other),
    };
    let exact = a / b.to_rational()?;
    let mut whole = exact.trunc().to_integer();
    if exact.is_negative() {
        whole -= 1;
        if let Decimal(divisor) = &b.0 {
            let multiple = multiply(b.clone(), Value::integer(whole.clone()))?;
            let rest = add(Value(Exact(a.clone())), multiple.negate())?;
            if rest.0 == Decimal(divisor.clone()) {
                whole += 1;
            }
        }
    }
    Ok(Value::integer(whole))
}

fn modulo(a: Value, b: Value) -> Result<Value> {
    match (a.0, b.0) {
        (_, b) if Value(b.clone()).is_zero() => Err(CalculatorError::DivisionByZero),
        (Undefined | Infinite, _) | (_, Undefined | Infinite) => Ok(Value(Undefined)),
        (Exact(a), Exact(b)) => Value::exact(&a - (&a / &b).floor() * &b),
        // With a fraction the remainder is exact before it is rounded, and stays a decimal.
        (Decimal(a), Exact(b)) if !b.is_integer() => {
            let exact = a.to_rational()?;
            let rest = &exact - (&exact / &b).floor() * &b;
            Ok(Value(Decimal(Float::from_rational(&rest, a.precision())?)))
        }
        (Exact(a), Decimal(b)) => {
            let divisor = b.to_rational()?;
            let rest = &a - (&a / &divisor).floor() * &divisor;
            Ok(Value(Decimal(Float::from_rational(&rest, b.precision())?)))
        }
        (Decimal(a), Exact(b)) => Ok(Value::decimal(a.modulo(&widened(&b, a.precision())?)?)),
        (Decimal(a), Decimal(b)) => {
            if a.div(&b)?.is_integer() {
                return Ok(Value(Decimal(Float::zero(a.precision().max(b.precision())))));
            }
            Ok(Value::decimal(a.modulo(&b)?))
        }
    }
}

fn power(a: Value, b: Value, budget: &mut Budget) -> Result<Value> {
    if b.0 == Infinite {
        return Ok(Value(Undefined));
    }
    if let Some(n) = b.as_integer() {
        if n.is_zero() {
            return Ok(Value::integer(1));
        }
        if n.is_one() {
            return Ok(a);
        }
    }
    if a.0 == Undefined || b.0 == Undefined {
        return Ok(Value(Undefined));
    }
    if a.0 == Infinite || a.is_zero() {
        // For zero and infinity only the sign of the exponent matters.
        let one = b.is_zero();
        let infinite = (a.0 == Infinite) != b.is_negative();
        return match a.0 {
            Infinite if one => Ok(Value(Undefined)),
            _ if one => Ok(Value::integer(1)),
            _ if infinite => Ok(Value(Infinite)),
            Infinite => Ok(Value::integer(0)),
            zero => Ok(Value(zero)),
        };
    }
    match (a.0, b.0) {
        (Exact(a), Exact(b)) => exact_power(&a, &b, budget),
        (Exact(a), Decimal(_)) if a.is_one() => Ok(Value::integer(1)),
        (Exact(a), Decimal(b)) => Ok(Value::decimal(widened(&a, b.precision())?.pow(&b)?)),
        (Decimal(a), Decimal(b)) => Ok(Value::decimal(a.pow(&b)?)),
        (Decimal(a), Exact(b)) if b.is_integer() => {
            let n = b.numer().to_i64().ok_or(CalculatorError::TooLarge)?;
            budget.charge(a.precision() * 4)?;
            Ok(Value::decimal(a.powi(n)?))
        }
        (Decimal(a), Exact(b)) => Ok(Value::decimal(a.pow(&widened(&b, a.precision())?)?)),
        (Infinite | Undefined, _) | (_, Infinite | Undefined) => Ok(Value(Undefined)),
    }
}

/// A fraction to an integer or fractional power; exact if the root is, otherwise a decimal.
fn exact_power(a: &BigRational, b: &BigRational, budget: &mut Budget) -> Result<Value> {
    if a.is_negative() && !b.is_integer() {
        return Err(CalculatorError::NotReal);
    }
    let perfect = b.denom().to_u32().and_then(|degree| exact_root(a, degree));
    let Some(root) = perfect else {
        let base = widened(a, super::float::PRECISION)?;
        return Ok(Value::decimal(base.pow(&widened(b, super::float::PRECISION)?)?));
    };
    let n = b.numer().magnitude().to_u32();
    let bits = root.numer().bits().max(root.denom().bits());
    // Powers of 1 and -1 stay small whatever the exponent.
    if bits == 1 && root.denom().is_one() {
        let odd = b.numer().is_odd();
        return Ok(Value::integer(if root.is_negative() && odd { -1 } else { 1 }));
    }
    let n = n.filter(|&n| (bits - 1).saturating_mul(u64::from(n)) <= MAX_BITS);
    let n = n.ok_or(CalculatorError::TooLarge)?;
    budget.charge(bits.saturating_mul(u64::from(n)))?;
    let power = BigRational::new_raw(root.numer().pow(n), root.denom().pow(n));
    Value::exact(if b.is_negative() { power.recip() } else { power })
}

/// The root of the given degree, if it is a fraction itself.
pub(crate) fn exact_root(a: &BigRational, degree: u32) -> Option<BigRational> {
    if degree == 1 {
        return Some(a.clone());
    }
    if a.is_negative() {
        return None;
    }
    let root = |x: &BigInt| {
        let root = x.nth_root(degree);
        let perfect = root.bits() * u64::from(degree) <= x.bits() + u64::from(degree)
            && root.pow(degree) == *x;
        perfect.then_some(root)
    };
    Some(BigRational::new_raw(root(a.numer())?, root(a.denom())?))
}

fn shift(op: Operator, a: &Value, b: &Value) -> Result<Value> {
    let (Some(a), Some(b)) = (a.as_integer(), b.as_integer()) else {
        return Err(CalculatorError::NotWhole(op.symbol().to_owned()));
    };
    let places = b.to_u64().ok_or(CalculatorError::TooLarge)?;
    if op == Operator::ShiftRight {
        return Ok(Value::integer(a >> places));
    }
    if places > MAX_BITS {
        return Err(CalculatorError::TooLarge);
    }
    Value::exact(BigRational::from_integer(a << places))
}

fn bitwise(op: Operator, a: &Value, b: &Value) -> Result<Value> {
    let (Some(a), Some(b)) = (a.as_integer(), b.as_integer()) else {
        return Err(CalculatorError::NotWhole(op.symbol().to_owned()));
    };
    Ok(Value::integer(match op {
        Operator::And => a & b,
        Operator::Or => a | b,
        _ => a ^ b,
    }))
}
