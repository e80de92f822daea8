//! JSON values with their path, for error messages.

use serde_json::Value;

/// A structural error.
#[derive(Debug)]
pub struct Malformed {
    /// Path in the file.
    pub key: String,
    /// A predicate: `is missing`, `is not a number`.
    pub what: String,
}

/// A value and its path.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    pub value: &'a Value,
    key: String,
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self { value, key: String::new() }
    }

    pub fn malformed(&self, what: impl Into<String>) -> Malformed {
        let key = if self.key.is_empty() { "the file".to_owned() } else { self.key.clone() };
        Malformed { key, what: what.into() }
    }

    fn child(&self, name: &str, value: &'a Value) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        Self { value, key: format!("{}{dot}{name}", self.key) }
    }

    /// The entry `name`.
    pub fn get(&self, name: &str) -> Result<Self, Malformed> {
        match self.object()?.get(name) {
            Some(value) => Ok(self.child(name, value)),
            None => Err(self.child(name, self.value).malformed("is missing")),
        }
    }

    fn object(&self) -> Result<&'a serde_json::Map<String, Value>, Malformed> {
        self.value.as_object().ok_or_else(|| self.malformed("is not an object"))
    }

    /// All entries with their names.
    pub fn entries(&self) -> Result<Vec<(&'a str, Self)>, Malformed> {
        let entries = self.object()?.iter();
        Ok(entries.map(|(name, value)| (name.as_str(), self.child(name, value))).collect())
    }

    /// The elements of an array.
    pub fn items(&self) -> Result<Vec<Self>, Malformed> {
        let items = self.value.as_array().ok_or_else(|| self.malformed("is not an array"))?;
        let child = |(i, value)| Self { value, key: format!("{}[{i}]", self.key) };
        Ok(items.iter().enumerate().map(child).collect())
    }

    /// The elements of an array of `expected` elements.
    pub fn items_exactly(&self, expected: usize) -> Result<Vec<Self>, Malformed> {
        let items = self.items()?;
        if items.len() == expected {
            Ok(items)
        } else {
            Err(self.malformed(format!("has {} elements instead of {expected}", items.len())))
        }
    }

    pub fn number(&self) -> Result<f64, Malformed> {
        self.value.as_f64().ok_or_else(|| self.malformed("is not a number"))
    }

    pub fn count(&self) -> Result<usize, Malformed> {
        let count = self.value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.malformed("is not a whole number"))
    }

    /// A matrix of numbers, flat, row after row.
    pub fn matrix(&self, rows: usize, tokens: usize) -> Result<Vec<f64>, Malformed> {
        let mut flat = Vec::new();
        for row in self.items_exactly(rows)? {
            for item in row.items_exactly(tokens)? {
                flat.push(item.number()?);
            }
        }
        Ok(flat)
    }

    /// verl's error message, if verl rejected the case.
    pub fn refusal(&self) -> Option<&'a str> {
        self.value.get("error").and_then(Value::as_str)
    }
}
