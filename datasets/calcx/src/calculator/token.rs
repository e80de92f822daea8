//! Tokenizer with Python's rules for numbers.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero;

use super::float::Float;
use super::value::{Kind, Value};
use super::{CalculatorError, MAX_DIGITS};

type Result<T> = std::result::Result<T, CalculatorError>;

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    Xor,
    And,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

impl Operator {
    /// All operators, longer symbols before their prefixes.
    const ALL: [Self; 12] = [
        Self::Power,
        Self::FloorDivide,
        Self::ShiftLeft,
        Self::ShiftRight,
        Self::Or,
        Self::Xor,
        Self::And,
        Self::Add,
        Self::Subtract,
        Self::Multiply,
        Self::Divide,
        Self::Modulo,
    ];

    pub fn symbol(self) -> &'static str {
        match self {
            Self::Or => "|",
            Self::Xor => "^",
            Self::And => "&",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Modulo => "%",
            Self::Power => "**",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Number(Value),
    Name(String),
    Operator(Operator),
    Invert,
    /// `!` or `!!`: the number of marks.
    Factorial(usize),
    Open,
    Close,
    Comma,
}

/// A token with the byte offset of its start.
pub(crate) type Placed = (usize, Token);

/// Splits an expression into tokens. A line break counts as a space, but only inside
/// parentheses.
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>> {
    let mut found = Vec::new();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if matches!(first, ' ' | '\t' | '\u{c}') || (depth > 0 && matches!(first, '\n' | '\r')) {
            at += 1;
            continue;
        }
        if first == '#' {
            // A comment, as in Python.
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (token, length) = if let Some(length) = number_length(rest.as_bytes()) {
            (Token::Number(number(&rest[..length])?), length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            (Token::Name(name.to_owned()), name.len())
        } else {
            symbol(rest, first).ok_or(CalculatorError::Character { found: first, at })?
        };
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        found.push((at, token));
        at += length;
    }
    Ok(found)
}

fn symbol(rest: &str, first: char) -> Option<(Token, usize)> {
    let single = match first {
        '(' => Token::Open,
        ')' => Token::Close,
        ',' => Token::Comma,
        '~' => Token::Invert,
        '!' => {
            let marks = rest.bytes().take_while(|&b| b == b'!').count();
            return Some((Token::Factorial(marks), marks));
        }
        _ => {
            let op = Operator::ALL.into_iter().find(|op| rest.starts_with(op.symbol()))?;
            return Some((Token::Operator(op), op.symbol().len()));
        }
    };
    Some((single, 1))
}

/// Length of a run of digits with single underscores between them; 0 if there is none.
fn digits(bytes: &[u8], is_digit: impl Fn(&u8) -> bool) -> usize {
    let mut length = 0;
    loop {
        let from = length + usize::from(length > 0 && bytes.get(length) == Some(&b'_'));
        if !bytes.get(from).is_some_and(&is_digit) {
            return length;
        }
        length = from + 1;
    }
}

/// Length of the number at the start of `bytes`, as in Python's tokenizer.
fn number_length(bytes: &[u8]) -> Option<usize> {
    let decimal = |from: usize| digits(bytes.get(from..).unwrap_or(&[]), u8::is_ascii_digit);
    let exponent = |from: usize| {
        if !matches!(bytes.get(from), Some(b'e' | b'E')) {
            return 0;
        }
        let sign = usize::from(matches!(bytes.get(from + 1), Some(b'+' | b'-')));
        match decimal(from + 1 + sign) {
            0 => 0,
            length => 1 + sign + length,
        }
    };
    let whole = decimal(0);
    if bytes.get(whole) == Some(&b'.') {
        let length = whole + 1 + decimal(whole + 1);
        return (length > 1).then(|| length + exponent(length));
    }
    if whole == 0 {
        return None;
    }
    if let Some((_, is_digit)) = radix(bytes) {
        let length = bytes.get(2..).map_or(0, |rest| {
            let underscore = usize::from(rest.first() == Some(&b'_'));
            match digits(&rest[underscore..], is_digit) {
                0 => 0,
                length => underscore + length,
            }
        });
        if length > 0 {
            return Some(2 + length);
        }
    }
    match exponent(whole) {
        // A leading zero is allowed only in zero itself; `007` becomes two tokens, hence an error.
        0 if bytes[0] == b'0' => Some(digits(bytes, |&b| b == b'0')),
        length => Some(whole + length),
    }
}

type IsDigit = fn(&u8) -> bool;

/// The base of a prefix such as `0x`, and its digits.
fn radix(bytes: &[u8]) -> Option<(u32, IsDigit)> {
    match (bytes.first()?, bytes.get(1)?) {
        (b'0', b'x' | b'X') => Some((16, u8::is_ascii_hexdigit)),
        (b'0', b'o' | b'O') => Some((8, |b| (b'0'..=b'7').contains(b))),
        (b'0', b'b' | b'B') => Some((2, |b| matches!(b, b'0' | b'1'))),
        _ => None,
    }
}

/// The value of a number: decimal with a point or an exponent, exact without.
fn number(text: &str) -> Result<Value> {
    let plain = text.replace('_', "");
    let parse = |digits: &str, radix| {
        if digits.len() > MAX_DIGITS {
            return Err(CalculatorError::TooLarge);
        }
        BigInt::parse_bytes(digits.as_bytes(), radix).ok_or(CalculatorError::TooLarge)
    };
    if let Some((radix, _)) = radix(plain.as_bytes()) {
        return Ok(Value::integer(parse(&plain[2..], radix)?));
    }
    let Some((mantissa, exponent)) = split_decimal(&plain) else {
        return Ok(Value::integer(parse(&plain, 10)?));
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_value = parse(&format!("0{whole}{fraction}"), 10)?;
    let exponent = exponent - fraction.len() as i64;
    if exponent.unsigned_abs() > MAX_DIGITS as u64 * 2 {
        return Err(CalculatorError::TooLarge);
    }
    let ten = BigInt::from(10).pow(exponent.unsigned_abs() as u32);
    let is_zero = mantissa_value.is_zero();
    let value = if exponent >= 0 {
        BigRational::from_integer(mantissa_value * ten)
    } else {
        BigRational::new(mantissa_value, ten)
    };
    // At least 15 digits are kept, and all of them in longer literals. An integer without a
    // point such as 1e20 counts with the zeros implied by the exponent.
    let mut significant = format!("{whole}{fraction}").trim_start_matches('0').len();
    if value.is_integer() && !mantissa.contains('.') && !is_zero {
        significant = significant.max(value.numer().to_string().len());
    }
    let float = Float::from_rational(&value, precision(significant.max(15)))?;
    Ok(Value(Kind::Decimal(float)))
}

/// Mantissa and exponent of a decimal; `None` for an integer.
fn split_decimal(text: &str) -> Option<(&str, i64)> {
    match text.split_once(['e', 'E']) {
        // An exponent that does not fit exceeds every limit.
        Some((mantissa, exponent)) => Some((mantissa, exponent.parse().unwrap_or(i32::MAX.into()))),
        None => text.contains('.').then_some((text, 0)),
    }
}

/// Bits for a number of decimal digits, by mpmath's rule.
fn precision(digits: usize) -> u64 {
    ((digits + 1) as f64 * std::f64::consts::LOG2_10).round() as u64
}
