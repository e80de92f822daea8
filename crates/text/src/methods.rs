//! Python's string methods for chat templates, within the fuel of a rendering.
//!
//! The engine charges what its own operators and filters create, and what methods return once they
//! have returned it. The methods here can create far more than their input, so they are charged
//! before they run.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// Bytes of text that one unit of fuel pays for, as in minijinja.
const BYTES: usize = 64;
/// Bytes of one entry of a list.
const SLOT: usize = 64;

/// Charges `bytes` of text or list entries to the rendering.
///
/// # Errors
/// The fuel is used up.
pub(crate) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES) as u64)
}

/// Python's `str.isspace`: Unicode's White_Space and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub(crate) fn trim(state: &State, value: &Value, chars: Option<&str>) -> Result<String, Error> {
    let mut text = Text::new(state);
    text.push(value)?;
    Ok(match chars {
        Some(chars) => text.written.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.written.trim_matches(is_space).to_owned(),
    })
}

/// Python's methods: `strip` and `join` are implemented here, the others by pycompat.
pub(crate) fn method(
    state: &mut State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let to_strip = args.first().is_none_or(Value::is_none);
    if let Some(text) = value.as_str() {
        match name {
            "strip" if to_strip => return Ok(Value::from(text.trim_matches(is_space))),
            "lstrip" if to_strip => return Ok(Value::from(text.trim_start_matches(is_space))),
            "rstrip" if to_strip => return Ok(Value::from(text.trim_end_matches(is_space))),
            "join" => {
                if let [values] = args {
                    return join(state, text, values);
                }
            }
            _ => charge(state, most_bytes(text, name, args))?,
        }
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// An upper bound of what a method of `text` creates.
fn most_bytes(text: &str, name: &str, args: &[Value]) -> usize {
    let arg = |index: usize| args.get(index).and_then(Value::as_str);
    match name {
        "replace" => match (arg(0), arg(1)) {
            (Some(old), Some(new)) => {
                let count = if old.is_empty() { text.len() + 1 } else { text.matches(old).count() };
                text.len().saturating_add(count.saturating_mul(new.len()))
            }
            _ => 0,
        },
        "split" | "splitlines" => {
            let parts = match (name, arg(0)) {
                ("split", Some(separator)) if !separator.is_empty() => {
                    text.matches(separator).count()
                }
                ("split", _) => text.split_whitespace().count(),
                _ => text.lines().count(),
            };
            text.len() + (parts + 1).saturating_mul(SLOT)
        }
        "format" => {
            let widths = text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
            let width = |run: &str| run.parse::<usize>().unwrap_or(usize::MAX);
            widths.map(width).fold(text.len(), usize::saturating_add)
        }
        _ => text.len(),
    }
}

fn join(state: &State, separator: &str, values: &Value) -> Result<Value, Error> {
    let mut text = Text::new(state);
    for (index, value) in values.try_iter()?.enumerate() {
        if index > 0 {
            text.write(separator)?;
        }
        charge(state, SLOT)?;
        text.push(&value)?;
    }
    Ok(Value::from(text.written))
}

/// A text that grows as long as there is fuel: the text of a value may be exponentially longer
/// than the value, as lists can contain one list several times.
struct Text<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    written: String,
}

impl<'s, 't, 'e> Text<'s, 't, 'e> {
    fn new(state: &'s State<'t, 'e>) -> Self {
        Self { state, written: String::new() }
    }

    fn write(&mut self, text: &str) -> Result<(), Error> {
        // Also for empty texts, of which a value may have any number.
        charge(self.state, text.len() + BYTES)?;
        self.written.push_str(text);
        Ok(())
    }

    fn push(&mut self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.write(text),
            None if value.kind() == ValueKind::Undefined => Ok(()),
            None => write!(self, "{value}").map_err(|_| Error::from(ErrorKind::OutOfFuel)),
        }
    }
}

impl Write for Text<'_, '_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text).map_err(|_| fmt::Error)
    }
}
