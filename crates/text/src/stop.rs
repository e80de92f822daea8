//! Stop texts, which end a response before the model does.
//!
//! A stop text may begin in one token and end in another, so the search is bytewise, by the
//! automaton of Knuth, Morris and Pratt: linear in the length of the response. For streaming it
//! also yields how much of the text so far may be the beginning of a stop text. If several stop
//! texts overlap, the one that completes first wins; of several that end at the same byte, the
//! longest. So the result does not depend on the tokenisation of the text.

use std::sync::Arc;

use crate::{ChatFormat, TextStream};

/// Texts searched for in a byte stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needles(Vec<Needle>);

#[derive(Debug, Clone)]
struct Needle {
    bytes: Vec<u8>,
    /// For each prefix, by length − 1: the length of its longest proper suffix that is also a
    /// prefix.
    borders: Vec<usize>,
    /// Number of bytes of the needle matched at the end of the input.
    matched: usize,
}

impl Needles {
    /// Empty texts are ignored: they would match everywhere.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Self {
        let texts = texts.iter().map(|text| text.as_ref().as_bytes());
        Self(texts.filter(|text| !text.is_empty()).map(Needle::new).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a byte and returns the length of the longest text that ends with it.
    pub fn push(&mut self, byte: u8) -> Option<usize> {
        self.0.iter_mut().filter_map(|needle| needle.push(byte)).max()
    }

    /// The number of bytes at the end of the input that may be the beginning of a text.
    pub fn begun(&self) -> usize {
        self.0.iter().map(|needle| needle.matched).max().unwrap_or(0)
    }

    /// Resets to empty input.
    pub fn reset(&mut self) {
        for needle in &mut self.0 {
            needle.matched = 0;
        }
    }
}

impl Needle {
    fn new(bytes: &[u8]) -> Self {
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for end in 1..bytes.len() {
            while border > 0 && bytes[border] != bytes[end] {
                border = borders[border - 1];
            }
            border += usize::from(bytes[border] == bytes[end]);
            borders[end] = border;
        }
        Self { bytes: bytes.to_vec(), borders, matched: 0 }
    }

    fn push(&mut self, byte: u8) -> Option<usize> {
        let full = self.bytes.len();
        while self.matched > 0 && (self.matched == full || self.bytes[self.matched] != byte) {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        (self.matched == full).then_some(full)
    }
}

/// The text of a response up to its first stop text, token by token.
#[derive(Debug, Clone)]
pub(crate) struct CutText {
    stream: TextStream,
    stops: Needles,
    /// Position at which a stop text begins.
    cut: Option<usize>,
    /// Number of bytes emitted.
    given: usize,
    /// A trailing end-of-turn token is not part of the text; whether it is trailing is known only
    /// with the next token.
    last: Option<u32>,
}

impl CutText {
    pub fn new(stops: &[String]) -> Self {
        Self {
            stream: TextStream::new(),
            stops: Needles::new(stops),
            cut: None,
            given: 0,
            last: None,
        }
    }

    /// Adds a token and returns the text that is now final. Empty after a stop text.
    pub fn push(&mut self, format: &ChatFormat, id: u32) -> &str {
        let from = self.given;
        if let Some(last) = self.last.take() {
            self.read(format, last);
        }
        if format.stop_ids().contains(&id) {
            self.last = Some(id);
        } else {
            self.read(format, id);
        }
        &self.stream.text()[from..self.given]
    }

    /// Ends the text and returns the part that was held back.
    pub fn finish(&mut self) -> &str {
        let from = self.given;
        if self.cut.is_none() {
            let flushed = self.stream.flush().len();
            self.search(flushed);
            self.given = self.cut.unwrap_or(self.stream.text().len());
        }
        &self.stream.text()[from..self.given]
    }

    pub fn stopped(&self) -> bool {
        self.cut.is_some()
    }

    /// All text emitted so far.
    pub fn text(&self) -> &str {
        &self.stream.text()[..self.given]
    }

    fn read(&mut self, format: &ChatFormat, id: u32) {
        if self.cut.is_none() {
            let new = self.stream.push(format.tokenizer(), id).len();
            self.search(new);
            let whole = self.stream.text().len();
            self.given = self.cut.unwrap_or(whole - self.stops.begun());
        }
    }

    /// Searches for a stop text that ends within the last `new` bytes.
    fn search(&mut self, new: usize) {
        if self.stops.is_empty() {
            return;
        }
        let text = self.stream.text().as_bytes();
        let start = text.len() - new;
        for (at, &byte) in (start..).zip(&text[start..]) {
            if let Some(length) = self.stops.push(byte) {
                self.cut = Some(at + 1 - length);
                return;
            }
        }
    }
}

/// Detects stop texts only, for a sampler that must know when to end.
#[derive(Debug, Clone)]
pub struct StopTexts {
    format: Arc<ChatFormat>,
    text: CutText,
}

impl StopTexts {
    /// Detects any of `stops`; empty ones are ignored.
    pub fn new(format: &Arc<ChatFormat>, stops: &[String]) -> Self {
        Self { format: Arc::clone(format), text: CutText::new(stops) }
    }

    /// Adds the next token of the response; returns whether a stop text is complete.
    pub fn push(&mut self, id: u32) -> bool {
        self.text.push(&self.format, id);
        self.text.stopped()
    }
}
