//! Binary floating-point numbers of arbitrary precision.
//!
//! The original calculator uses SymPy's `Float`: a sign, an odd integer and a power of two,
//! rounded to 53 bits, or to more for literals of more than 15 digits. `f64` differs from it in
//! the last printed digit of large results (its exponent is bounded and long literals lose
//! digits), so this module computes with big integers. Every operation is rounded once, to
//! nearest, ties to even.

use num_bigint::{BigInt, BigUint, Sign};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::{CalculatorError, MAX_BITS};

/// Bits of a decimal with at most 15 digits.
pub(crate) const PRECISION: u64 = 53;

/// Larger exponents are an error: far outside the range of `f64`, and small enough that sums of
/// two cannot overflow.
const MAX_EXPONENT: u64 = 1 << 40;

type Result<T> = std::result::Result<T, CalculatorError>;

/// The number `mantissa · 2^exponent`; operations on it are rounded to `precision` bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Float {
    /// Odd, or zero.
    mantissa: BigInt,
    exponent: i64,
    precision: u64,
}

/// Rounds `mantissa · 2^exponent` to `precision` bits. With `inexact` the true value is slightly
/// farther from zero than the mantissa, which must then have at least two bits more than
/// `precision`.
fn round(mantissa: BigInt, exponent: i64, precision: u64, inexact: bool) -> Result<Float> {
    let (sign, mut magnitude) = mantissa.into_parts();
    if sign == Sign::NoSign {
        return Ok(Float { mantissa: BigInt::zero(), exponent: 0, precision });
    }
    let mut exponent = exponent;
    let bits = magnitude.bits();
    if bits > precision {
        let cut = bits - precision;
        let half = magnitude.bit(cut - 1);
        let below = inexact || magnitude.trailing_zeros().is_some_and(|zeros| zeros < cut - 1);
        magnitude >>= cut;
        if half && (below || magnitude.bit(0)) {
            magnitude += 1u8;
        }
        exponent += cut as i64;
    }
    let zeros = magnitude.trailing_zeros().unwrap_or(0);
    magnitude >>= zeros;
    exponent += zeros as i64;
    if exponent.unsigned_abs() > MAX_EXPONENT {
        return Err(CalculatorError::TooLarge);
    }
    Ok(Float { mantissa: BigInt::from_biguint(sign, magnitude), exponent, precision })
}

/// `numerator / denominator` times a power of two, rounded; the denominator is not zero.
fn quotient(numerator: &BigInt, denominator: &BigInt, exponent: i64, p: u64) -> Result<Float> {
    let shift = (p + 2 + denominator.bits()).saturating_sub(numerator.bits());
    let (quotient, rest) = (numerator << shift).div_rem(denominator);
    round(quotient, exponent - shift as i64, p, !rest.is_zero())
}

impl Float {
    pub fn zero(precision: u64) -> Self {
        Self { mantissa: BigInt::zero(), exponent: 0, precision }
    }

    pub fn from_rational(value: &BigRational, precision: u64) -> Result<Self> {
        quotient(value.numer(), value.denom(), 0, precision)
    }

    /// A fraction truncated, not rounded, after `bits` bits; further operations use 53.
    pub fn truncated(value: &BigRational, bits: u64) -> Result<Self> {
        let (p, q) = (value.numer(), value.denom());
        let shift = (bits + q.bits()).saturating_sub(p.bits());
        let cut = (p << shift) / q;
        let extra = cut.bits().saturating_sub(bits);
        // Towards zero for both signs, unlike an arithmetic shift of a negative number.
        let magnitude = cut.magnitude() >> extra;
        let exponent = extra as i64 - shift as i64;
        let exact = round(BigInt::from_biguint(cut.sign(), magnitude), exponent, bits, false)?;
        Ok(Self { precision: PRECISION, ..exact })
    }

    /// A finite `f64`, exactly; `None` for infinities and NaN.
    pub fn from_f64(value: f64) -> Option<Self> {
        let exact = BigRational::from_float(value)?;
        Self::from_rational(&exact, PRECISION).ok()
    }

    /// The nearest `f64`: infinite beyond its range, zero (with the sign) below it.
    pub fn to_f64(&self) -> f64 {
        let Ok(short) = round(self.mantissa.clone(), self.exponent, PRECISION, false) else {
            return f64::NAN;
        };
        let mantissa = short.mantissa.to_f64().unwrap_or(f64::NAN);
        // Two steps, because 2^exponent alone may overflow where the product does not.
        let exponent = short.exponent.clamp(-2200, 2200) as i32;
        let half = exponent / 2;
        mantissa * 2f64.powi(half) * 2f64.powi(exponent - half)
    }

    /// The exact value.
    pub fn to_rational(&self) -> Result<BigRational> {
        if self.exponent.unsigned_abs() > MAX_BITS {
            return Err(CalculatorError::TooLarge);
        }
        let power = BigInt::one() << self.exponent.unsigned_abs();
        Ok(if self.exponent >= 0 {
            BigRational::from_integer(&self.mantissa * power)
        } else {
            // Already in lowest terms: the mantissa is odd.
            BigRational::new_raw(self.mantissa.clone(), power)
        })
    }

    pub fn precision(&self) -> u64 {
        self.precision
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa.is_zero()
    }

    pub fn is_negative(&self) -> bool {
        self.mantissa.is_negative()
    }

    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// Bits of the mantissa, which determine the cost of an operation.
    pub fn bits(&self) -> u64 {
        self.mantissa.bits()
    }

    pub fn neg(&self) -> Self {
        Self { mantissa: -&self.mantissa, ..self.clone() }
    }

    pub fn abs(&self) -> Self {
        Self { mantissa: self.mantissa.abs(), ..self.clone() }
    }

    pub fn add(&self, other: &Self) -> Result<Self> {
        let precision = self.precision.max(other.precision);
        if self.is_zero() || other.is_zero() {
            let rest = if self.is_zero() { other } else { self };
            return round(rest.mantissa.clone(), rest.exponent, precision, false);
        }
        let (high, low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let gap = (high.exponent - low.exponent) as u64;
        let guard = precision + 4;
        if gap > low.mantissa.bits() + guard {
            // The smaller number is below every significant bit: only its sign matters.
            let mantissa = (&high.mantissa << guard) + low.mantissa.signum();
            return round(mantissa, high.exponent - guard as i64, precision, false);
        }
        round((&high.mantissa << gap) + &low.mantissa, low.exponent, precision, false)
    }

    pub fn mul(&self, other: &Self) -> Result<Self> {
        let precision = self.precision.max(other.precision);
        let exponent = self.exponent + other.exponent;
        round(&self.mantissa * &other.mantissa, exponent, precision, false)
    }

    pub fn div(&self, other: &Self) -> Result<Self> {
        if other.is_zero() {
            return Err(CalculatorError::DivisionByZero);
        }
        let precision = self.precision.max(other.precision);
        let exponent = self.exponent - other.exponent;
        quotient(&self.mantissa, &other.mantissa, exponent, precision)
    }

    /// The remainder with the sign of `other`, as in Python.
    pub fn modulo(&self, other: &Self) -> Result<Self> {
        if other.is_zero() {
            return Err(CalculatorError::DivisionByZero);
        }
        let precision = self.precision.max(other.precision);
        let (a, b) = (self.to_rational()?, other.to_rational()?);
        let rest = &a - (&a / &b).floor() * &b;
        Self::from_rational(&rest, precision)
    }

    pub fn floor(&self) -> Result<BigInt> {
        Ok(self.to_rational()?.floor().to_integer())
    }

    /// Square root of a number that is not negative, to `precision` bits.
    pub fn sqrt(&self, precision: u64) -> Result<Self> {
        let odd = self.exponent.rem_euclid(2);
        let magnitude: BigUint = self.mantissa.magnitude() << odd as u64;
        let mut shift = (2 * precision + 8).saturating_sub(magnitude.bits());
        shift += shift % 2;
        let scaled = magnitude << shift;
        let root = scaled.sqrt();
        let inexact = &root * &root != scaled;
        let exponent = (self.exponent - odd - shift as i64) / 2;
        round(root.into(), exponent, precision, inexact)
    }

    /// An integer power by repeated squaring with `4·log2(n) + 4` guard bits and truncated
    /// intermediate results: the same steps as mpmath's `mpf_pow_int`, so that the last bit
    /// matches.
    pub fn powi(&self, n: i64) -> Result<Self> {
        let precision = self.precision;
        let one = Self { mantissa: BigInt::one(), exponent: 0, precision };
        if n.unsigned_abs() > MAX_EXPONENT {
            return Err(CalculatorError::TooLarge);
        }
        if n == 0 {
            return Ok(one);
        }
        if n == -1 {
            return one.div(self);
        }
        if n < 0 {
            let wider = Self { precision: precision + 5, ..self.clone() };
            let power = wider.powi(-n)?;
            return one.div(&Self { precision, ..power });
        }
        let count = n as u64;
        let negative = self.is_negative() && n % 2 != 0;
        let signed =
            |m: BigUint| BigInt::from_biguint(if negative { Sign::Minus } else { Sign::Plus }, m);
        if self.exponent.unsigned_abs().saturating_mul(count) > MAX_EXPONENT {
            return Err(CalculatorError::TooLarge);
        }
        let mut base = self.mantissa.magnitude().clone();
        if n == 1 || base.is_one() || base.bits().saturating_mul(count) < 1000 {
            return round(signed(base.pow(count as u32)), self.exponent * n, precision, false);
        }
        let working = precision + 4 * u64::from(64 - count.leading_zeros()) + 4;
        let truncate = |m: &mut BigUint, e: &mut i64| {
            let extra = m.bits().saturating_sub(working);
            *m >>= extra;
            *e += extra as i64;
        };
        let (mut power, mut power_exponent, mut exponent) = (BigUint::one(), 0, self.exponent);
        let mut left = count;
        loop {
            if left % 2 == 1 {
                power *= &base;
                power_exponent += exponent;
                truncate(&mut power, &mut power_exponent);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            base = &base * &base;
            exponent *= 2;
            truncate(&mut base, &mut exponent);
            left /= 2;
        }
        round(signed(power), power_exponent, precision, false)
    }

    /// A power with a decimal exponent. Integer and half-integer exponents are exact up to one
    /// rounding; others use `f64`, whose 53 bits suffice for printing.
    pub fn pow(&self, exponent: &Self) -> Result<Self> {
        let precision = self.precision.max(exponent.precision);
        let base = Self { precision, ..self.clone() };
        if exponent.is_integer() {
            let n = exponent.to_rational()?.to_integer();
            return base.powi(n.to_i64().ok_or(CalculatorError::TooLarge)?);
        }
        if self.is_negative() {
            return Err(CalculatorError::NotReal);
        }
        if exponent.exponent == -1 {
            let halves = exponent.mantissa.to_i64().ok_or(CalculatorError::TooLarge)?;
            if halves == 1 {
                return base.sqrt(precision);
            }
            let root = base.sqrt(precision + 10)?;
            let wide = root.powi(halves)?;
            return round(wide.mantissa, wide.exponent, precision, false);
        }
        let power = self.to_f64().powf(exponent.to_f64());
        if power != 0.0 && power.is_finite() {
            return Self::from_f64(power).ok_or(CalculatorError::TooLarge);
        }
        self.pow_far(exponent.to_f64())
    }

    /// A power outside the range of `f64`, by base-2 logarithms.
    fn pow_far(&self, exponent: f64) -> Result<Self> {
        let bits = self.bits() as i64;
        let scaled = Self { exponent: -bits, ..self.clone() };
        let logarithm = ((self.exponent + bits) as f64 + scaled.to_f64().log2()) * exponent;
        if logarithm.is_nan() || logarithm.abs() > MAX_EXPONENT as f64 {
            return Err(CalculatorError::TooLarge);
        }
        let whole = logarithm.floor();
        let part = Self::from_f64((logarithm - whole).exp2()).ok_or(CalculatorError::TooLarge)?;
        round(part.mantissa, part.exponent + whole as i64, PRECISION, false)
    }
}
