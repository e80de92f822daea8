//! Behaviour of Python's Jinja2, as configured by transformers, that minijinja lacks.
//!
//! Chat templates are written for Jinja2 over Python values: `tojson` is `json.dumps`, `trim` is
//! `str.strip` (and turns None into the text `None`), a string is iterable and None is not, `{%
//! generation %}` marks assistant output. Any difference makes a template render other bytes, so
//! that the model sees other tokens.

use std::fmt::Write;

use chrono::NaiveDate;
use chrono::format::{Item, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value as Json;

use crate::methods::{charge, method, trim};

/// The message of a `raise_exception` call, carried as the source of minijinja's error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Raised(pub String);

/// An environment equivalent to transformers' `_compile_jinja_template`; `date` is what
/// `strftime_now` formats, at midnight.
pub(crate) fn environment(date: NaiveDate) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("the delimiters are the default ones"));
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", trim);
    env.add_test("iterable", iterable);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    env.add_function("strftime_now", move |format: &str| strftime(date, format));
    env
}

fn strftime(date: NaiveDate, format: &str) -> Result<String, Error> {
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    let mut text = String::new();
    let at_midnight = date.and_time(chrono::NaiveTime::MIN);
    write!(text, "{}", at_midnight.format_with_items(items.into_iter())).map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, format!("strftime_now cannot format `{format}`"))
    })?;
    Ok(text)
}

fn iterable(value: &Value) -> bool {
    !matches!(value.kind(), ValueKind::None | ValueKind::Number | ValueKind::Bool)
        && value.try_iter().is_ok()
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, the
/// filter that replaces Jinja2's HTML-escaping one in transformers.
fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(text) if text.as_str().is_some() => Some(text.to_string()),
        Some(width) => Some(" ".repeat(usize::try_from(width)?.min(64))),
    };
    let separators = match options.get::<Option<Value>>("separators")? {
        Some(pair) => {
            (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string())
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let dumper = Dumper {
        indent,
        separators,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        state: Some(state),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    dumper.value(&mut out, value, 0)?;
    Ok(out)
}

/// JSON as a Jinja value: integers stay integers, objects keep their order.
pub(crate) fn to_jinja(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(integer)) => Value::from(integer),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => Value::from(items.iter().map(to_jinja).collect::<Vec<_>>()),
        Json::Object(object) => {
            Value::from_pairs(object.iter().map(|(key, value)| (key.as_str(), to_jinja(value))))
        }
    }
}

/// `json.dumps(value, ensure_ascii=False)`.
pub(crate) fn dumps(value: &Json) -> String {
    let separators = (", ".to_owned(), ": ".to_owned());
    let dumper = Dumper { indent: None, separators, ascii: false, sort: false, state: None };
    let mut out = String::new();
    dumper.value(&mut out, &to_jinja(value), 0).map(|()| out).unwrap_or_default()
}

/// Bytes that are charged for every value: lists of empty texts are not free either.
const LEAST_TEXT: usize = 64;

/// Nesting at which a template's value is not written: beyond any JSON that serde_json reads, and
/// within the stack of a thread. Python gives up as well.
const MOST_NESTING: usize = 256;

struct Dumper<'s, 't, 'e> {
    indent: Option<String>,
    separators: (String, String),
    ascii: bool,
    sort: bool,
    /// The rendering that pays for the text.
    state: Option<&'s State<'t, 'e>>,
}

impl Dumper<'_, '_, '_> {
    fn value(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        self.charge(LEAST_TEXT)?;
        if depth > MOST_NESTING {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("a value is nested more than {MOST_NESTING} deep"),
            ));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
            ValueKind::Number => out.push_str(&float_repr(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                // One by one: `[0] * n` is a list of n items that takes no memory.
                self.container(out, ['[', ']'], value.try_iter()?, depth, |out, item| {
                    self.value(out, &item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.container(out, ['{', '}'], keys, depth, |out, key| {
                    if key.as_object().is_some() {
                        let what = format!("a {} is a key: not JSON serializable", key.kind());
                        return Err(Error::new(ErrorKind::InvalidOperation, what));
                    }
                    self.string(out, &key.to_string())?;
                    out.push_str(&self.separators.1);
                    self.value(out, &value.get_item(&key)?, depth + 1)
                })?;
            }
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value of type {other} is not JSON serializable"),
                ));
            }
        }
        Ok(())
    }

    fn container(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: impl IntoIterator<Item = Value>,
        depth: usize,
        mut write: impl FnMut(&mut String, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        let mut empty = true;
        for item in items {
            if !empty {
                self.charge(self.separators.0.len())?;
                out.push_str(&self.separators.0);
            }
            self.new_line(out, depth + 1)?;
            write(out, item)?;
            empty = false;
        }
        if !empty {
            self.new_line(out, depth)?;
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, out: &mut String, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.charge(indent.len().saturating_mul(depth))?;
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    /// Charges `bytes` of text before they are written.
    fn charge(&self, bytes: usize) -> Result<(), Error> {
        self.state.map_or(Ok(()), |state| charge(state, bytes))
    }

    fn string(&self, out: &mut String, text: &str) -> Result<(), Error> {
        self.charge(text.len())?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }
}

/// Python's `repr(float)`: the shortest digits that round-trip, plain for 1e-4 ≤ |x| < 1e16,
/// otherwise with an exponent of at least two digits.
fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{x:?}").trim_end_matches("e0").to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Replaces `{% generation %}` … `{% endgeneration %}` by a block that renders its body in a new
/// scope, which is the extension's only effect on the text.
pub(crate) fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[..end];
        let name = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let replacement = match name {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&inner.replace(name, replacement));
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use minijinja::Value;

    use super::*;

    fn render(source: &str) -> String {
        let env = environment(crate::default_date());
        env.render_str(&without_generation_blocks(source), Value::from_pairs([("n", ())])).unwrap()
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (x, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float_repr(x), text);
        }
    }

    #[test]
    fn tojson_is_json_dumps() {
        assert_eq!(
            render(r#"{{ {"a": [1, 2.5, none, true], "b": {}} | tojson }}"#),
            r#"{"a": [1, 2.5, null, true], "b": {}}"#
        );
        assert_eq!(
            render(r#"{{ {"a": [1], "b": []} | tojson(indent=2) }}"#),
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}"
        );
        assert_eq!(render(r#"{{ "<é\u0001\"🦀>" | tojson }}"#), "\"<é\\u0001\\\"🦀>\"");
        assert_eq!(render(r#"{{ "é🦀" | tojson(ensure_ascii=true) }}"#), r#""\u00e9\ud83e\udd80""#);
        assert_eq!(
            render(r#"{{ {"b": 1, "a": 2} | tojson(sort_keys=true, separators=(",", ":")) }}"#),
            r#"{"a":2,"b":1}"#
        );
    }

    #[test]
    fn none_and_strings_behave_as_in_python() {
        assert_eq!(render("{{ n | trim }}{{ n }}"), "NoneNone");
        assert_eq!(render("{{ n is iterable }} {{ 'x' is iterable }}"), "False True");
        assert_eq!(render("{{ ' \\u001c\\u00a0x ' | trim }}{{ '\\u001fy '.strip() }}"), "xy");
        assert_eq!(render("{{ 'aXbX'.split('X')[-1] + 'xxa'.lstrip('x') }}"), "a");
    }

    #[test]
    fn generation_blocks_render_their_body() {
        assert_eq!(render("a {%- generation -%} b {%- endgeneration %} c"), "ab c");
        assert_eq!(
            render("{% if true %}\nx{% generation %}\n y{% endgeneration %}{% endif %}"),
            "x y"
        );
    }

    #[test]
    fn the_date_is_formatted_and_a_bad_format_is_an_error() {
        assert_eq!(render("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
        assert!(strftime(crate::default_date(), "%Q").is_err());
        let env = environment(crate::default_date());
        assert!(env.render_str("{{ nothing | tojson }}", ()).is_err());
    }
}
