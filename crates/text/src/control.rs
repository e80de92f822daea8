//! Control tokens that a message spells out.
//!
//! A tokenizer turns `<|im_end|>` into the token that ends a turn wherever it reads these
//! characters. In a prompt that is right for what the template writes, and wrong for a user's
//! text, a retrieved passage or a cell of a database: such text could end its turn and speak as
//! somebody else. So the names of control tokens inside messages are marked before the template
//! is rendered, and the marked stretches of its text are encoded as ordinary text.

use std::borrow::Cow;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Tokenizer;

/// How the name of a control token inside a message is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlTokens {
    /// As ordinary text.
    #[default]
    Text,
    /// As the control token, as transformers' `apply_chat_template` does.
    Template,
}

impl FromStr for ControlTokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "template" => Ok(Self::Template),
            _ => Err(format!("`{text}`: use text or template")),
        }
    }
}

/// Around a name that a message spells out. Noncharacters: Unicode reserves them for use inside
/// a program, and no template treats them in any way.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';
/// First byte of both in UTF-8.
const MARK_BYTE: u8 = 0xef;

/// Names of control tokens, to be found in messages.
#[derive(Debug)]
pub(crate) struct Names {
    /// By first byte; the longest first.
    names: Vec<Vec<String>>,
}

impl Names {
    /// The names of `tokenizer`'s control tokens, but for those in `except`.
    pub fn of(tokenizer: &Tokenizer, except: &[&str]) -> Self {
        let mut names = vec![Vec::new(); 256];
        for name in tokenizer.special_names().filter(|name| !except.contains(name)) {
            if let Some(&first) = name.as_bytes().first() {
                names[usize::from(first)].push(name.to_owned());
            }
        }
        for names in &mut names {
            names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        }
        Self { names }
    }

    /// `text` with marks around every name in it, and without marks of its own.
    pub fn mark<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let bytes = text.as_bytes();
        let (mut marked, mut copied, mut at) = (String::new(), 0, 0);
        // Bytes that begin a name or a mark are never within a character.
        while let Some(skipped) = bytes[at..].iter().position(|&byte| self.begins(byte)) {
            at += skipped;
            let rest = &text[at..];
            let names = &self.names[usize::from(bytes[at])];
            if let Some(name) = names.iter().find(|name| rest.starts_with(name.as_str())) {
                marked.push_str(&text[copied..at]);
                marked.push(OPEN);
                marked.push_str(name);
                marked.push(CLOSE);
                at += name.len();
                copied = at;
            } else if rest.starts_with([OPEN, CLOSE]) {
                marked.push_str(&text[copied..at]);
                marked.push(char::REPLACEMENT_CHARACTER);
                at += OPEN.len_utf8();
                copied = at;
            } else {
                at += 1;
            }
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        marked.push_str(&text[copied..]);
        Cow::Owned(marked)
    }

    /// Whether a name or a mark may begin with this byte.
    fn begins(&self, byte: u8) -> bool {
        byte == MARK_BYTE || !self.names[usize::from(byte)].is_empty()
    }

    /// [`Names::mark`] of every text in a JSON value, keys included.
    pub fn mark_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.mark(text).into_owned().into(),
            Value::Array(items) => items.iter().map(|item| self.mark_json(item)).collect(),
            Value::Object(entries) => {
                let marked = |(key, value): (&String, &Value)| {
                    (self.mark(key).into_owned(), self.mark_json(value))
                };
                Value::Object(entries.iter().map(marked).collect())
            }
            other => other.clone(),
        }
    }
}

/// What a template wrote, and where in it a message spells out a control token.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rendering {
    pub text: String,
    /// Byte ranges of `text`, in order.
    pub spelled: Vec<Range<usize>>,
}

impl Rendering {
    /// Takes the marks out of what a template wrote.
    pub fn of(marked: String) -> Self {
        if !marked.contains([OPEN, CLOSE]) {
            return Self { text: marked, spelled: Vec::new() };
        }
        let mut rendering = Self::default();
        let mut begin = None;
        for part in marked.split_inclusive([OPEN, CLOSE]) {
            let mark = part.chars().next_back().filter(|last| [OPEN, CLOSE].contains(last));
            rendering.text.push_str(&part[..part.len() - mark.map_or(0, char::len_utf8)]);
            let end = rendering.text.len();
            match mark {
                Some(OPEN) => begin = Some(end),
                Some(_) => rendering.spelled.extend(begin.take().map(|begin| begin..end)),
                None => {}
            }
        }
        rendering
    }

    /// What follows byte `from`, after `before`.
    pub fn tail(&self, from: usize, before: &str) -> Self {
        let later = self.spelled.iter().filter(|range| range.start >= from);
        let moved = |at: usize| at - from + before.len();
        Self {
            text: format!("{before}{}", &self.text[from..]),
            spelled: later.map(|range| moved(range.start)..moved(range.end)).collect(),
        }
    }

    /// The stretches of the text in order, each with whether it spells out a control token.
    pub fn parts(&self) -> impl Iterator<Item = (&str, bool)> {
        let ends = self.spelled.iter().map(|range| range.end);
        let starts = std::iter::once(0).chain(ends);
        let whole = self.text.len();
        let nexts = self.spelled.iter().cloned().chain(std::iter::once(whole..whole));
        starts
            .zip(nexts)
            .flat_map(|(start, next)| {
                [(&self.text[start..next.start], false), (&self.text[next], true)]
            })
            .filter(|(part, _)| !part.is_empty())
    }
}
