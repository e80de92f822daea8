//! A JSON tree that is cheap to parse, for model servers' responses.
//!
//! A response has four fields per token, most of which are not read here. As `serde_json::Value`
//! it takes a hash map and some ten allocations per token, which was a fifth of the cost of a
//! forwarded call. This tree borrows its strings, stores maps as lists, and skips large unread
//! fields.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Large fields that are not read; a token's text is also in its bytes.
const SKIPPED: &[&str] = &["token", "top_logprobs", "prompt_logprobs"];

/// JSON without the fields in [`SKIPPED`].
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) enum Tree<'a> {
    Null,
    Bool(bool),
    Whole(u64),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Map(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    /// `None` if `bytes` are not valid JSON.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// A field of a map. Of duplicate keys the last wins, as in most JSON parsers.
    pub(in crate::gateway) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => {
                fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    pub(in crate::gateway) fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    pub(in crate::gateway) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn whole(&self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(in crate::gateway) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }

    pub(in crate::gateway) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => (*flag).into(),
            Self::Whole(number) => (*number).into(),
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_ref().into(),
            Self::List(items) => items.iter().map(Self::to_value).collect(),
            Self::Map(fields) => {
                fields.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree<'de>, E> {
        Ok(u64::try_from(number).map_or(Tree::Number(number as f64), Tree::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree<'de>, E> {
        Ok(Tree::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
        Ok(Tree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            if SKIPPED.contains(&key.as_ref()) {
                map.next_value::<IgnoredAny>()?;
            } else {
                fields.push((key, map.next_value()?));
            }
        }
        Ok(Tree::Map(fields))
    }
}

/// A key, borrowed if it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Tree::deserialize(deserializer)? {
            Tree::Text(key) => Ok(Self(key)),
            _ => Err(serde::de::Error::custom("a name must be a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Tree;

    #[test]
    fn the_tree_is_the_json_without_skipped_fields() {
        let text = r#"{"a": [1, -2, 2.5, null, true, "x\n", {}], "token": "t", "b": {"a": 1, "a": 2},
            "top_logprobs": [{"token": 3}]}"#;
        let tree = Tree::read(text.as_bytes()).unwrap();
        let expected = json!({"a": [1, -2.0, 2.5, null, true, "x\n", {}], "b": {"a": 2}});
        assert_eq!(tree.to_value(), expected);
        assert_eq!(tree.get("b").and_then(|b| b.get("a")?.whole()), Some(2));
    }

    #[test]
    fn invalid_json_gives_none() {
        let deep = "[".repeat(10_000);
        for text in ["", "{", "[1,]", "{1: 2}", "nul", deep.as_str()] {
            assert_eq!(Tree::read(text.as_bytes()), None, "{text:.20}");
        }
        assert_eq!(Tree::read(b"\xff\xfe"), None);
    }

    #[test]
    fn a_value_can_be_deserialised_too() {
        let value: Value = json!({"choices": [{"text": "a"}]});
        let tree: Tree = serde::Deserialize::deserialize(&value).unwrap();
        assert_eq!(tree.to_value(), value);
    }
}
