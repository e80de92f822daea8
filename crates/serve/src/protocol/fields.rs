//! Reads a JSON object and rejects unknown fields.
//!
//! A reader takes known fields by name and type, and [`Fields::finish`] rejects the rest. An
//! absent field and `null` are equivalent.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// An object of the body and the fields read so far.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Its path: empty for the body itself, else for example `messages[2]`.
    path: String,
    read: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub fn root(map: &'a Map<String, Value>) -> Self {
        Self { map, path: String::new(), read: Vec::new() }
    }

    /// `value` at `path`, as an object.
    pub fn at(value: &'a Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path, read: Vec::new() }),
            other => Err(wrong(path, "an object", other)),
        }
    }

    /// The full path of a field, as used in errors.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub fn error(&self, name: &str, message: impl std::fmt::Display) -> ApiError {
        let path = self.path(name);
        let message = format!("`{path}` {message}");
        ApiError::invalid(Some(path), message)
    }

    /// A field of any type.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.read.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| wrong(self.path(name), expected, value))
    }

    pub fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub fn needed_text(&mut self, name: &'static str) -> Result<&'a str, ApiError> {
        self.text(name)?.ok_or_else(|| self.error(name, "is missing"))
    }

    pub fn flag(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.typed(name, &expected, |value| value.as_f64().filter(|x| range.contains(x)))
    }

    /// A whole number; `5.0` is one.
    pub fn whole(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let expected = if *range.end() == u64::MAX {
            format!("a whole number of at least {}", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        self.typed(name, &expected, |value| whole(value).filter(|x| range.contains(x)))
    }

    pub fn list(&mut self, name: &'static str) -> Result<Option<&'a [Value]>, ApiError> {
        self.typed(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub fn object(&mut self, name: &'static str) -> Result<Option<Fields<'a>>, ApiError> {
        let path = self.path(name);
        self.value(name).map(|value| Fields::at(value, path)).transpose()
    }

    /// Accepts fields that this server ignores, with any value.
    pub fn skip(&mut self, names: &[&'static str]) {
        self.read.extend_from_slice(names);
    }

    /// Accepts a field only with a value that has no effect.
    pub fn neutral(
        &mut self,
        name: &'static str,
        changes_nothing: fn(&Value) -> bool,
        why_not: &str,
    ) -> Result<(), ApiError> {
        let Some(value) = self.value(name).filter(|value| !changes_nothing(value)) else {
            return Ok(());
        };
        let of = match value {
            Value::Array(_) | Value::Object(_) => String::new(),
            scalar => format!(" of {}", short(scalar)),
        };
        let path = self.path(name);
        let message = format!("`{path}`{of} is not supported: {why_not}");
        Err(ApiError::invalid(Some(path), message))
    }

    /// Rejects the first unread field.
    pub fn finish(&self) -> Result<(), ApiError> {
        let unread = |(name, value): &(&'a String, &'a Value)| {
            !value.is_null() && !self.read.contains(&name.as_str())
        };
        match self.map.iter().find(unread) {
            None => Ok(()),
            Some((name, _)) => {
                Err(self.error(&short_name(name), "is not supported by this server; remove it"))
            }
        }
    }
}

/// The strings of a list; other entries are rejected.
pub(super) fn texts(values: &[Value], path: &str) -> Result<Vec<String>, ApiError> {
    let text = |(i, value): (usize, &Value)| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong(format!("{path}[{i}]"), "a string", other)),
    };
    values.iter().enumerate().map(text).collect()
}

pub(super) fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let x = value.as_f64()?;
        // Beyond 2^53 a float is not an exact integer.
        (x.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&x)).then_some(x as u64)
    })
}

/// "`path` must be `expected`, not 7".
pub(super) fn wrong(path: String, expected: &str, found: &Value) -> ApiError {
    let message = format!("`{path}` must be {expected}, not {}", short(found));
    ApiError::invalid(Some(path), message)
}

/// A value as shown in errors, abbreviated; lists and objects by type only.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", short_name(text)),
        scalar => scalar.to_string(),
    }
}

/// At most forty characters of a client's string.
fn short_name(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
