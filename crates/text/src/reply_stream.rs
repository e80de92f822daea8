//! A reply while it is being generated.
//!
//! What a client sees piece by piece must be, joined, what it would have seen at once. So
//! whatever may still turn out not to be text is held back: bytes of an unfinished character,
//! the beginning of a stop text, and, where tools are offered, the beginning of a tool call
//! and white space around calls. Every token is looked at once; a response of n tokens takes
//! O(n) time.

use std::sync::Arc;

use leyden_core::{ChatReply, ChatRequest, FinishReason, Message, ToolCall};

use crate::ChatFormat;
use crate::markup::Markup;
use crate::stop::CutText;

/// Turns the tokens of a response into text and tool calls as they come.
#[derive(Debug, Clone)]
pub struct ReplyStream {
    format: Arc<ChatFormat>,
    text: CutText,
    markup: Markup,
    ids: CallIds,
    /// What was given out so far.
    content: usize,
    calls: usize,
}

/// What is certain now and was not before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplyDelta {
    /// Text outside tool calls.
    pub content: String,
    /// Tool calls that are complete.
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
    /// What was held back until now.
    pub delta: ReplyDelta,
    /// The whole text outside tool calls: all deltas joined.
    pub content: String,
    /// The reply as [`ChatFormat::reply`] gives it, its text as sampled, up to the stop text.
    pub reply: ChatReply,
}

/// How tool calls are named.
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

/// Number of tool calls in the conversation that `request` shows.
pub(crate) fn earlier_calls(request: &ChatRequest) -> usize {
    request.messages.iter().map(|message| message.tool_calls.len()).sum()
}

impl ReplyStream {
    /// A reply to `request`. Without offered tools the text stays as it is, markup included.
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

    /// Names tool calls by `seed` and their position in the reply, whatever the request says: ids that are unique wherever seeds are. A server that answers many
    /// conversations needs it, since a client may keep them together.
    #[must_use]
    pub fn with_call_seed(mut self, seed: u64) -> Self {
        self.ids = CallIds::Prefixed { prefix: format!("call_{seed:016x}_") };
        self
    }

    /// Takes the next token. Nothing is given out after a stop text.
    pub fn push(&mut self, id: u32) -> ReplyDelta {
        let mut delta = ReplyDelta::default();
        self.markup.push(self.text.push(&self.format, id), &mut delta);
        self.count(&mut delta);
        delta
    }

    /// Whether a stop text is complete: generation should end.
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
        // What came last, and what only the end of the text makes certain.
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
