//! Incremental parsing of a reply while it is generated.
//!
//! The concatenated deltas must equal the complete reply. Anything that may turn out not to be text
//! is held back: bytes of an unfinished character, the beginning of a stop text and, if tools are
//! offered, the beginning of a tool call and white space around calls. Each token is processed
//! once; a response of n tokens takes O(n) time.

use std::sync::Arc;

use leyden_core::{ChatReply, ChatRequest, FinishReason, Message, ToolCall};

use crate::ChatFormat;
use crate::markup::Markup;
use crate::stop::CutText;

/// Turns the tokens of a response into text and tool calls incrementally.
#[derive(Debug, Clone)]
pub struct ReplyStream {
    format: Arc<ChatFormat>,
    text: CutText,
    markup: Markup,
    ids: CallIds,
    /// Bytes of content emitted so far.
    content: usize,
    calls: usize,
}

/// Output that has become certain since the last delta.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplyDelta {
    /// Text outside tool calls.
    pub content: String,
    /// Complete tool calls.
    pub tool_calls: Vec<ToolCall>,
}

impl ReplyDelta {
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.tool_calls.is_empty()
    }
}

/// The end of a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyEnd {
    /// Output held back until the end.
    pub delta: ReplyDelta,
    /// The whole text outside tool calls: all deltas joined.
    pub content: String,
    /// The reply as returned by [`ChatFormat::reply`], its text as sampled, up to the stop text.
    pub reply: ChatReply,
}

/// How tool calls are numbered.
#[derive(Debug, Clone)]
enum CallIds {
    /// `call_<n>`, where n counts the calls of the conversation.
    Counted { first: usize },
    /// `<prefix><n>`, where n counts the calls of the reply.
    Prefixed { prefix: String },
}

impl CallIds {
    fn id(&self, index: usize) -> String {
        match self {
            Self::Counted { first } => format!("call_{}", first + index),
            Self::Prefixed { prefix } => format!("{prefix}{index}"),
        }
    }
}

/// Number of tool calls in the conversation of `request`.
pub(crate) fn earlier_calls(request: &ChatRequest) -> usize {
    request.messages.iter().map(|message| message.tool_calls.len()).sum()
}

impl ReplyStream {
    /// A stream for the reply to `request`. Without offered tools the text is kept unchanged,
    /// including markup.
    pub fn new(format: &Arc<ChatFormat>, request: &ChatRequest) -> Self {
        let offered = !request.offered_tools().is_empty();
        Self {
            format: Arc::clone(format),
            text: CutText::new(&request.stop),
            markup: Markup::new(offered.then(|| format.tool_format())),
            ids: match &request.call_prefix {
                Some(prefix) => CallIds::Prefixed { prefix: prefix.clone() },
                None => CallIds::Counted { first: earlier_calls(request) },
            },
            content: 0,
            calls: 0,
        }
    }

    /// Derives tool-call ids from `seed` and the position in the reply, regardless of the request:
    /// ids that are unique if seeds are. Needed by a server with many conversations, since a client
    /// may merge them.
    #[must_use]
    pub fn with_call_seed(mut self, seed: u64) -> Self {
        self.ids = CallIds::Prefixed { prefix: format!("call_{seed:016x}_") };
        self
    }

    /// Adds the next token. Nothing is emitted after a stop text.
    pub fn push(&mut self, id: u32) -> ReplyDelta {
        let mut delta = ReplyDelta::default();
        self.markup.push(self.text.push(&self.format, id), &mut delta);
        self.count(&mut delta);
        delta
    }

    /// Whether a stop text is complete and generation should end.
    pub fn stopped(&self) -> bool {
        self.text.stopped()
    }

    /// Ends the reply.
    pub fn finish(mut self, finish: FinishReason) -> ReplyEnd {
        let mut delta = ReplyDelta::default();
        self.markup.push(self.text.finish(), &mut delta);
        let text = self.text.text();
        let (content, mut calls, malformed_call) = match self.markup.tool_format() {
            None => (text.to_owned(), Vec::new(), None),
            Some(format) => {
                let parsed = format.parse(text, 0);
                (parsed.content, parsed.calls, parsed.malformed)
            }
        };
        for (index, call) in calls.iter_mut().enumerate() {
            call.id = self.ids.id(index);
        }
        // The last output, and what becomes certain only at the end of the text.
        let rest = ReplyDelta {
            content: content.get(self.content..).unwrap_or_default().to_owned(),
            tool_calls: calls.get(self.calls..).unwrap_or_default().to_vec(),
        };
        debug_assert!(rest.content.starts_with(&delta.content));
        let message = Message { tool_calls: calls, ..Message::assistant(text) };
        let reply = ChatReply { malformed_call, ..ChatReply::of(message, finish) };
        ReplyEnd { delta: rest, content, reply }
    }

    fn count(&mut self, delta: &mut ReplyDelta) {
        self.content += delta.content.len();
        for call in &mut delta.tool_calls {
            call.id = self.ids.id(self.calls);
            self.calls += 1;
        }
    }
}
