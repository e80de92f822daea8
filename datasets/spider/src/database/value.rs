//! A cell of a result, compared as the official evaluator compares it.
//!
//! The evaluator is a Python program, so two of Python's rules are part of the score: `1`
//! equals `1.0` but never `"1"`, and rows are first compared with their cells sorted by
//! their text and the name of their type. That sort is by text, so `1.0` and `1` may land in
//! different places; [`Value::sort_text`] keeps this quirk, because it decides.

use std::fmt::Write;
use std::hash::{Hash, Hasher};

use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

/// One cell: SQLite's five storage classes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    /// Text with the bytes that are not UTF-8 left out.
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    /// Takes a cell over; bytes of a text that are not UTF-8 are left out.
    pub(crate) fn read(cell: ValueRef<'_>) -> Self {
        match cell {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::Text(without_invalid(bytes)),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_owned()),
        }
    }

    /// Bytes that the cell occupies, for limits.
    pub(crate) fn bytes(&self) -> usize {
        let own = size_of::<Self>();
        match self {
            Self::Text(text) => own + text.len(),
            Self::Blob(bytes) => own + bytes.len(),
            _ => own,
        }
    }

    /// Equal in value and in type: stricter than `==`.
    pub(crate) fn same_type_and_value(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self == other
    }

    /// What Python sorts by: `str(x) + str(type(x))`.
    pub(crate) fn sort_text(&self) -> String {
        match self {
            Self::Null => "None<class 'NoneType'>".to_owned(),
            Self::Integer(value) => format!("{value}<class 'int'>"),
            Self::Real(value) => float_text(*value) + "<class 'float'>",
            Self::Text(text) => format!("{text}<class 'str'>"),
            Self::Blob(bytes) => bytes_text(bytes) + "<class 'bytes'>",
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a == b,
            (Self::Integer(a), Self::Real(b)) | (Self::Real(b), Self::Integer(a)) => {
                whole(*b) == Some(*a)
            }
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

/// SQLite stores NaN as NULL, so equality is reflexive.
impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Null => 0u8.hash(state),
            Self::Integer(value) => (1u8, *value).hash(state),
            Self::Real(value) => match whole(*value) {
                Some(value) => (1u8, value).hash(state),
                None => (2u8, value.to_bits()).hash(state),
            },
            Self::Text(text) => (3u8, text).hash(state),
            Self::Blob(bytes) => (4u8, bytes).hash(state),
        }
    }
}

impl std::fmt::Display for Value {
    /// As a person reads it: `NULL`, numbers, texts as they are, blobs by their length.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Real(value) => f.write_str(&float_text(*value)),
            Self::Text(text) => f.write_str(text),
            Self::Blob(bytes) => write!(f, "<{} bytes>", bytes.len()),
        }
    }
}

/// The integer that a real number is, if it is one that SQLite can hold.
fn whole(value: f64) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    (value.fract() == 0.0 && (-END..END).contains(&value)).then_some(value as i64)
}

fn without_invalid(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.utf8_chunks().map(|chunk| chunk.valid()).collect(),
    }
}

/// Python's `repr` of a float: the shortest digits that give the number back, with an
/// exponent below 1e-4 and from 1e16 on.
fn float_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Python's `repr` of bytes.
fn bytes_text(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b if char::from(b) == quote => {
                text.push('\\');
                text.push(quote);
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push(quote);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(value: &Value) -> u64 {
        let mut state = std::hash::DefaultHasher::new();
        value.hash(&mut state);
        state.finish()
    }

    #[test]
    fn numbers_are_equal_by_value_and_never_equal_to_texts() {
        let (one, real) = (Value::Integer(1), Value::Real(1.0));
        assert_eq!(one, real);
        assert_eq!(hash(&one), hash(&real));
        assert!(!one.same_type_and_value(&real));
        assert_ne!(one, Value::Text("1".into()));
        assert_ne!(Value::Null, Value::Text("None".into()));
        assert_ne!(Value::Text("a".into()), Value::Blob(b"a".to_vec()));
        assert_eq!(Value::Real(0.0), Value::Real(-0.0));
        assert_eq!(hash(&Value::Real(0.0)), hash(&Value::Real(-0.0)));
        // 2^53 + 1 has no float of its own: the comparison must not round it to one.
        let large = 9_007_199_254_740_993;
        assert_ne!(Value::Integer(large), Value::Real(large as f64));
        assert_ne!(Value::Integer(i64::MAX), Value::Real(9.223_372_036_854_776e18));
        assert_ne!(Value::Real(0.1 + 0.2), Value::Real(0.3));
    }

    #[test]
    fn texts_of_floats_are_those_of_python() {
        for (value, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456.789, "123456.789"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(float_text(value), text);
        }
        assert_eq!(bytes_text(b"a'\x00\n"), "b\"a'\\x00\\n\"");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_left_out() {
        let value = Value::read(ValueRef::Text(b"Fran\xe7ois \xc3\xa9"));
        assert_eq!(value, Value::Text("Franois \u{e9}".into()));
    }
}
