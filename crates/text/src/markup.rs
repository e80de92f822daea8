//! Incremental parsing of tool-call markup in streamed text.
//!
//! Emits, as early as it is certain, what [`ToolFormat::parse`] finds in the complete text: the
//! text outside calls, trimmed, and the calls. If only the end of the text can decide (Llama 3's
//! calls are the whole message, a Hermes call may lack its closing tag), nothing is emitted before.

use leyden_core::ToolCall;

use crate::ToolFormat;
use crate::reply_stream::ReplyDelta;
use crate::stop::Needles;
use crate::tool_format::{CLOSE, JsonState, OPEN, PYTHON_TAG, hermes_call, json_state};

/// Separates text from calls.
#[derive(Debug, Clone)]
pub(crate) enum Markup {
    /// No tools are offered: everything is text.
    Plain,
    Hermes(ToolFormat, Hermes),
    Llama3(Llama3),
}

impl Markup {
    /// For text with calls in `format`, or without calls.
    pub fn new(format: Option<ToolFormat>) -> Self {
        match format {
            None => Self::Plain,
            Some(ToolFormat::Llama3Json) => Self::Llama3(Llama3::new()),
            Some(format) => Self::Hermes(format, Hermes::new()),
        }
    }

    pub fn tool_format(&self) -> Option<ToolFormat> {
        match self {
            Self::Plain => None,
            Self::Hermes(format, _) => Some(*format),
            Self::Llama3(_) => Some(ToolFormat::Llama3Json),
        }
    }

    /// Adds text; output that is now certain is added to `delta`. Calls have no id yet.
    pub fn push(&mut self, text: &str, delta: &mut ReplyDelta) {
        match self {
            Self::Plain => delta.content.push_str(text),
            Self::Hermes(_, hermes) => hermes.push(text, delta),
            Self::Llama3(llama) => llama.push(text, &mut delta.content),
        }
    }
}

/// Removes white space at both ends of a streamed text.
#[derive(Debug, Clone, Default)]
struct Trimmed {
    begun: bool,
    /// White space that is part of the text if more follows.
    space: String,
}

impl Trimmed {
    fn push(&mut self, text: &str, out: &mut String) {
        let text = if self.begun { text } else { text.trim_start() };
        let solid = text.trim_end().len();
        if solid > 0 {
            self.begun = true;
            out.push_str(&self.space);
            self.space.clear();
            out.push_str(&text[..solid]);
        }
        self.space.push_str(&text[solid..]);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Hermes {
    state: State,
    content: Trimmed,
    /// Text neither emitted nor discarded: a possible opening tag, or the call so far.
    buffer: String,
    open: Needles,
    close: Needles,
}

#[derive(Debug, Clone)]
enum State {
    Text,
    Call(Call),
    /// After a call that does not parse: everything up to the closing tag is dropped.
    Skip,
}

/// A call after its opening tag.
#[derive(Debug, Clone, Default)]
struct Call {
    json: JsonEnd,
    /// Number of scanned bytes of the buffer.
    at: usize,
    /// Size of the buffer when it was last parsed to check whether it can still become a call.
    tried: usize,
}

impl Hermes {
    fn new() -> Self {
        Self {
            state: State::Text,
            content: Trimmed::default(),
            buffer: String::new(),
            open: Needles::new(&[OPEN]),
            close: Needles::new(&[CLOSE]),
        }
    }

    fn push(&mut self, text: &str, delta: &mut ReplyDelta) {
        let mut new = self.buffer.len();
        self.buffer.push_str(text);
        // Each transition leaves a state with some of the buffer; the rest is new to the next
        // state.
        while self.turn(new, delta) {
            new = 0;
        }
    }

    /// Continues in the current state from byte `new` of the buffer; true if the state changed.
    fn turn(&mut self, new: usize, delta: &mut ReplyDelta) -> bool {
        match &mut self.state {
            State::Text => {
                let found = find(&mut self.open, &self.buffer[new..]).map(|end| new + end);
                let end = found.unwrap_or(self.buffer.len());
                let text = found.map_or(end - self.open.begun(), |end| end - OPEN.len());
                self.content.push(&self.buffer[..text], &mut delta.content);
                self.buffer.drain(..if found.is_some() { end } else { text });
                if found.is_some() {
                    self.open.reset();
                    self.close.reset();
                    self.state = State::Call(Call::default());
                }
                found.is_some()
            }
            State::Call(call) => match call.scan(&self.buffer, &mut self.close) {
                Scan::Open => false,
                Scan::Closed { end } => {
                    if let (Ok((name, arguments)), _) = hermes_call(&self.buffer[..end]) {
                        let id = String::new();
                        delta.tool_calls.push(ToolCall { id, name, arguments });
                    }
                    self.buffer.drain(..end);
                    self.state = State::Text;
                    true
                }
                Scan::NotACall => {
                    self.close.reset();
                    self.state = State::Skip;
                    true
                }
            },
            State::Skip => {
                let found = find(&mut self.close, &self.buffer[new..]).map(|end| new + end);
                self.buffer.drain(..found.unwrap_or(self.buffer.len()));
                if found.is_some() {
                    self.state = State::Text;
                }
                found.is_some()
            }
        }
    }
}

/// End of the first match in `text`, which continues the needles' earlier input.
fn find(needles: &mut Needles, text: &str) -> Option<usize> {
    text.bytes().position(|byte| needles.push(byte).is_some()).map(|at| at + 1)
}

enum Scan {
    /// Undecided until more text arrives.
    Open,
    /// JSON and a closing tag that ends at `end`.
    Closed { end: usize },
    /// Not a call, whatever follows.
    NotACall,
}

impl Call {
    /// Scans the new part of `body`, the text after the opening tag. `close` finds closing tags in
    /// it.
    fn scan(&mut self, body: &str, close: &mut Needles) -> Scan {
        while self.json != JsonEnd::Reached {
            let Some(&byte) = body.as_bytes().get(self.at) else { return Scan::Open };
            self.at += 1;
            self.json.push(byte);
            match self.json {
                JsonEnd::Never => return Scan::NotACall,
                JsonEnd::Reached if json_state(&body[..self.at]) != JsonState::Whole => {
                    return Scan::NotACall;
                }
                _ => {}
            }
            // A closing tag within the JSON: either in a string or after an error. Parsed again
            // only when the body has doubled, so that the total cost stays linear.
            if close.push(byte).is_some() && self.at >= 2 * self.tried {
                self.tried = self.at;
                if json_state(&body[..self.at]) == JsonState::Broken {
                    return Scan::NotACall;
                }
            }
        }
        let space = body[self.at..].len() - body[self.at..].trim_start().len();
        self.at += space;
        let rest = &body[self.at..];
        if rest.starts_with(CLOSE) {
            Scan::Closed { end: self.at + CLOSE.len() }
        } else if CLOSE.starts_with(rest) {
            Scan::Open
        } else {
            Scan::NotACall
        }
    }
}

/// Finds where a JSON object, array or string ends, without validating it.
#[derive(Debug, Clone, PartialEq, Default)]
enum JsonEnd {
    #[default]
    Before,
    Within {
        depth: usize,
        string: bool,
        escaped: bool,
    },
    Reached,
    /// Not an object, array or string, or invalid JSON: not a call.
    Never,
}

impl JsonEnd {
    fn push(&mut self, byte: u8) {
        match self {
            Self::Before => match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {}
                b'{' | b'[' => *self = Self::Within { depth: 1, string: false, escaped: false },
                b'"' => *self = Self::Within { depth: 0, string: true, escaped: false },
                _ => *self = Self::Never,
            },
            Self::Within { string: true, escaped: escaped @ true, .. } => *escaped = false,
            Self::Within { depth, string: string @ true, escaped } => match byte {
                b'\\' => *escaped = true,
                b'"' if *depth == 0 => *self = Self::Reached,
                b'"' => *string = false,
                _ => {}
            },
            Self::Within { depth, string, .. } => match byte {
                b'"' => *string = true,
                b'{' | b'[' => *depth += 1,
                b'}' | b']' if *depth == 1 => *self = Self::Reached,
                b'}' | b']' => *depth -= 1,
                _ => {}
            },
            Self::Reached | Self::Never => {}
        }
    }
}

/// Llama 3 writes calls as the whole message, or after `<|python_tag|>`; whether JSON is an answer
/// or a call is known only at its end.
#[derive(Debug, Clone)]
pub(crate) struct Llama3 {
    content: Trimmed,
    /// A possible beginning of the tag.
    buffer: String,
    tag: Needles,
    /// All further text is held until the end.
    waiting: bool,
}

impl Llama3 {
    fn new() -> Self {
        Self {
            content: Trimmed::default(),
            buffer: String::new(),
            tag: Needles::new(&[PYTHON_TAG]),
            waiting: false,
        }
    }

    fn push(&mut self, text: &str, out: &mut String) {
        let begun = self.content.begun || !self.buffer.is_empty();
        self.waiting |= !begun && text.trim_start().starts_with('{');
        if self.waiting {
            return;
        }
        let new = self.buffer.len();
        self.buffer.push_str(text);
        let found = find(&mut self.tag, &self.buffer[new..]).map(|end| new + end);
        let end = match found {
            Some(end) => end - PYTHON_TAG.len(),
            None => self.buffer.len() - self.tag.begun(),
        };
        self.content.push(&self.buffer[..end], out);
        self.buffer.drain(..end);
        self.waiting = found.is_some();
    }
}
