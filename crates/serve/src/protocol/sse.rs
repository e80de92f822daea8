//! Server-sent events, buffered until the next write.

use bytes::Bytes;
use serde::Serialize;

/// A buffer of unsent events.
#[derive(Default)]
pub(super) struct Sse(Vec<u8>);

impl Sse {
    /// An unnamed event, as in OpenAI's chat streams.
    pub fn data(&mut self, data: &impl Serialize) {
        self.0.extend_from_slice(b"data: ");
        self.json(data);
        self.0.extend_from_slice(b"\n\n");
    }

    /// A named event.
    pub fn event(&mut self, name: &str, data: &impl Serialize) {
        self.0.extend_from_slice(b"event: ");
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.data(data);
    }

    /// The end of OpenAI's chat and completion streams.
    pub fn done(&mut self) {
        self.0.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// A comment line, ignored by clients; it keeps the connection alive.
    pub fn comment(&mut self, text: &str) {
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(text.as_bytes());
        self.0.extend_from_slice(b"\n\n");
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the events of `other`.
    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    pub fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.0).into()
    }

    /// Values in memory always serialise: keys are strings, and writing to memory succeeds.
    fn json(&mut self, data: &impl Serialize) {
        let begin = self.0.len();
        if serde_json::to_writer(&mut self.0, data).is_err() {
            self.0.truncate(begin);
            self.0.extend_from_slice(b"null");
        }
    }
}
