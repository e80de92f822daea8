//! Keys that benchmarks add to an experiment file.
//!
//! The trainer is independent of benchmarks: a program passes the keys of its benchmarks, with
//! defaults and descriptions, as a [`Schema`](super::schema::Schema). Keys in `[agent]`, `[data]`
//! or in other tables that are not the trainer's are read unchanged and then resolved against the
//! declarations, so that unknown keys are rejected, every key has a value, and help and reference
//! come from one place.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The default of a benchmark key, which also determines its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preset {
    /// A mandatory string. The table of such a key exists only if the file has it.
    Required,
    Text(&'static str),
    /// A whole number that is not negative.
    Whole(u32),
    /// A whole number that is at least 1.
    Count(u32),
    Number(f64),
    Flag(bool),
    /// A list of strings, empty by default.
    Texts,
    /// A table of strings, empty by default.
    Table,
}

impl Preset {
    fn value(self) -> Option<toml::Value> {
        Some(match self {
            Self::Required => return None,
            Self::Text(text) => text.into(),
            Self::Whole(number) | Self::Count(number) => i64::from(number).into(),
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::Texts => toml::Value::Array(Vec::new()),
            Self::Table => toml::Value::Table(toml::Table::new()),
        })
    }

    /// The value as stored, or an error naming the expected type.
    fn check(self, value: toml::Value) -> Result<toml::Value, String> {
        use toml::Value::{Array, Boolean, Float, Integer, String as Text, Table};
        let expected = match (self, &value) {
            (Self::Required | Self::Text(_), Text(_)) | (Self::Flag(_), Boolean(_)) => {
                return Ok(value);
            }
            (Self::Number(_), Float(number)) if number.is_finite() => return Ok(value),
            (Self::Number(_), Integer(number)) => return Ok(Float(*number as f64)),
            (Self::Count(_), Integer(number)) if *number < 1 => {
                return Err("must be at least 1".to_owned());
            }
            (Self::Whole(_), Integer(number)) if *number < 0 => {
                return Err("must not be negative".to_owned());
            }
            (Self::Whole(_) | Self::Count(_), Integer(_)) => return Ok(value),
            (Self::Texts, Array(list)) if list.iter().all(toml::Value::is_str) => return Ok(value),
            (Self::Table, Table(table)) if table.values().all(toml::Value::is_str) => {
                return Ok(value);
            }
            (Self::Required | Self::Text(_), _) => "a string",
            (Self::Whole(_) | Self::Count(_), _) => "a whole number",
            (Self::Number(_), _) => "a number",
            (Self::Flag(_), _) => "true or false",
            (Self::Texts, _) => "a list of strings",
            (Self::Table, _) => "a table of strings",
        };
        Err(format!("`{value}` is not {expected}"))
    }
}

/// A command-line option that sets a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// The placeholder of its value in help.
    pub value: &'static str,
}

/// A key declared by a benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnKey {
    /// `agent.…`, `data.…`, or in a separate table.
    pub path: &'static str,
    pub what: &'static str,
    pub preset: Preset,
    /// Command-line option for evaluations, which have no experiment file.
    pub flag: Option<Flag>,
}

impl OwnKey {
    pub const fn new(path: &'static str, preset: Preset, what: &'static str) -> Self {
        Self { path, what, preset, flag: None }
    }

    pub const fn flag(self, name: &'static str, value: &'static str) -> Self {
        Self { flag: Some(Flag { name, value }), ..self }
    }
}

/// An invalid value of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct KeyError {
    pub key: String,
    pub what: String,
}

impl KeyError {
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }
}

/// Values of benchmark keys, in the order of their declaration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(Vec<(String, Item)>);

#[derive(Debug, Clone, PartialEq)]
enum Item {
    Value(toml::Value),
    Table(Values),
}

impl Values {
    /// The keys of one table with their defaults; if `table` is empty, those of all tables other
    /// than `[agent]` and `[data]`.
    pub fn defaults(keys: &[OwnKey], table: &str) -> Self {
        let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
        let keys = if table.is_empty() { tables(keys) } else { keys.to_vec() };
        resolve(&keys, &prefix, toml::Table::new(), &[]).unwrap_or_default()
    }

    /// The value of a dotted key; `None` if undeclared.
    pub fn get(&self, path: &str) -> Option<&toml::Value> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let (_, item) = self.0.iter().find(|(known, _)| known == name)?;
        match (item, rest) {
            (Item::Value(value), None) => Some(value),
            (Item::Table(table), Some(rest)) => table.get(rest),
            _ => None,
        }
    }

    /// Sets the value of an existing dotted key.
    ///
    /// Returns whether the key exists.
    pub fn set(&mut self, path: &str, value: toml::Value) -> bool {
        let (name, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        match (self.0.iter_mut().find(|(known, _)| known == name), rest) {
            (Some((_, Item::Value(old))), None) => *old = value,
            (Some((_, Item::Table(table))), Some(rest)) => return table.set(rest, value),
            _ => return false,
        }
        true
    }

    /// Whether there is a table of this name.
    pub fn has_table(&self, name: &str) -> bool {
        self.0.iter().any(|(known, item)| known == name && matches!(item, Item::Table(_)))
    }

    /// Names and values at the top level.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl Serialize + '_)> {
        self.0.iter().map(|(name, item)| (name.as_str(), item))
    }

    /// As TOML, without the order of the keys.
    fn into_table(self) -> toml::Table {
        let plain = |(name, item)| {
            let value = match item {
                Item::Value(value) => value,
                Item::Table(values) => toml::Value::Table(values.into_table()),
            };
            (name, value)
        };
        self.0.into_iter().map(plain).collect()
    }

    /// The values of `keys`, each as read or its default. `prefix` is their table with a trailing
    /// dot; `known` are the other keys of that table, for error messages.
    pub(super) fn resolved(
        self,
        keys: &[OwnKey],
        prefix: &str,
        known: &[&str],
    ) -> Result<Self, KeyError> {
        resolve(keys, prefix, self.into_table(), known)
    }
}

/// The keys of tables other than `[agent]` and `[data]`.
pub(super) fn tables(keys: &[OwnKey]) -> Vec<OwnKey> {
    let elsewhere =
        |key: &&OwnKey| !key.path.starts_with("agent.") && !key.path.starts_with("data.");
    keys.iter().filter(elsewhere).copied().collect()
}

fn resolve(
    keys: &[OwnKey],
    prefix: &str,
    mut given: toml::Table,
    known: &[&str],
) -> Result<Values, KeyError> {
    let mut values = Values::default();
    for key in keys {
        let Some(rest) = key.path.strip_prefix(prefix) else { continue };
        let Some((table, _)) = rest.split_once('.') else {
            let reject = |what: String| KeyError::new(key.path, what);
            let value = match given.remove(rest) {
                Some(value) => key.preset.check(value).map_err(reject)?,
                None => key.preset.value().ok_or_else(|| reject("is missing".to_owned()))?,
            };
            values.0.push((rest.to_owned(), Item::Value(value)));
            continue;
        };
        if values.has_table(table) {
            continue;
        }
        let inner = format!("{prefix}{table}.");
        let own = match given.remove(table) {
            Some(toml::Value::Table(own)) => own,
            Some(_) => return Err(KeyError::new(format!("{prefix}{table}"), "is not a table")),
            // A table with a mandatory key is optional.
            None if keys
                .iter()
                .any(|k| k.path.starts_with(&inner) && k.preset == Preset::Required) =>
            {
                continue;
            }
            None => toml::Table::new(),
        };
        let own = resolve(keys, &inner, own, &[])?;
        values.0.push((table.to_owned(), Item::Table(own)));
    }
    if let Some(unknown) = given.keys().next() {
        let own = keys.iter().filter_map(|key| key.path.strip_prefix(prefix));
        let mut names: Vec<&str> = known.to_vec();
        for name in own.map(|path| path.split('.').next().unwrap_or(path)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        return Err(KeyError::new(
            format!("{prefix}{unknown}"),
            format!("unknown field `{unknown}`, expected one of {}", names.join(", ")),
        ));
    }
    Ok(values)
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, item) in &self.0 {
            map.serialize_entry(name, item)?;
        }
        map.end()
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Table(table) => table.serialize(serializer),
        }
    }
}

/// Reads a struct's fields from `inner` and everything else into `rest`. (Serde's `flatten` would
/// do the same but lose the spans, from which errors get their line numbers.)
pub(super) struct Rest<'a, D> {
    pub inner: D,
    pub rest: &'a mut Values,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Rest<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(RestVisitor { fields, visitor, rest: self.rest })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct RestVisitor<'a, V> {
    fields: &'static [&'static str],
    visitor: V,
    rest: &'a mut Values,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for RestVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<V::Value, M::Error> {
        self.visitor.visit_map(RestMap { fields: self.fields, map, rest: self.rest })
    }
}

struct RestMap<'a, M> {
    fields: &'static [&'static str],
    map: M,
    rest: &'a mut Values,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for RestMap<'_, M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, M::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if self.fields.contains(&key.as_str()) {
                let key: de::value::StringDeserializer<M::Error> = key.into_deserializer();
                return seed.deserialize(key).map(Some);
            }
            let value = self.map.next_value()?;
            self.rest.0.push((key, Item::Value(value)));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [OwnKey; 5] = [
        OwnKey::new("agent.check", Preset::Text("model"), "who checks"),
        OwnKey::new("agent.passages", Preset::Count(4), "passages"),
        OwnKey::new("agent.out.benchmark", Preset::Required, "whose tasks"),
        OwnKey::new("agent.out.roles", Preset::Table, "roles"),
        OwnKey::new("search.method", Preset::Text("words"), "how to search"),
    ];

    fn agent(given: &str) -> Result<String, KeyError> {
        let given = toml::from_str(given).unwrap();
        resolve(&KEYS, "agent.", given, &["name"]).map(|values| toml::to_string(&values).unwrap())
    }

    #[test]
    fn keys_are_in_declaration_order_with_defaults() {
        assert_eq!(agent("passages = 1").unwrap(), "check = \"model\"\npassages = 1\n");
        let with_table = agent("[out]\nbenchmark = 'x'\nroles = { b = 'B' }").unwrap();
        let expected = "check = \"model\"\npassages = 4\n\n[out]\nbenchmark = \"x\"\n\n\
                        [out.roles]\nb = \"B\"\n";
        assert_eq!(with_table, expected);
        let values = resolve(&KEYS, "", toml::Table::new(), &[]).unwrap();
        assert_eq!(values.get("search.method").and_then(|v| v.as_str()), Some("words"));
        assert_eq!(values.get("agent.out.benchmark"), None);
    }

    #[test]
    fn errors_name_the_key() {
        for (given, sentence) in [
            ("chek = 'x'", "agent.chek: unknown field `chek`, expected one of `name`, `check`"),
            ("passages = 0", "agent.passages: must be at least 1"),
            ("passages = 'x'", "agent.passages: `\"x\"` is not a whole number"),
            ("out = 3", "agent.out: is not a table"),
            ("[out]\nroles = {}", "agent.out.benchmark: is missing"),
            ("[out]\nbenchmark = 'x'\nrole = {}", "agent.out.role: unknown field `role`"),
            ("[out]\nbenchmark = 'x'\nroles = { a = 1 }", "agent.out.roles: `{ a = 1 }` is not"),
        ] {
            let error = agent(given).unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
    }
}
