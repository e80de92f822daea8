//! Prompts that grow by tokens.
//!
//! The second call of a rollout shows the model what it wrote in the first. Rendering the
//! whole conversation and tokenising it again may give other tokens than the model sampled
//! (BPE has many spellings of one text), and then prefix caches miss, prefixes of a rollout
//! do not merge, and a trainer sees actions that nobody took. So the ids of the next prompt
//! are the ids of the last prompt, the ids of the response, and the tokens of the tail: what
//! the template writes after the assistant's text. The tail is found by rendering the
//! conversation with a mark in place of that text.
//!
//! Some templates rewrite what came before (Qwen3 drops the thinking of earlier turns). Then
//! the prompt is tokenised anew and says so, and the trainer counts it.

use leyden_core::{ChatRequest, Message, Speaker, ToolSpec};

use crate::chat_format::PLACE;
use crate::{ChatFormat, TextError};

/// How a prompt came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It begins with the `reused` ids of an earlier prompt and its response.
    Extended { reused: usize },
    /// It continues no earlier call of this rollout.
    Fresh,
    /// It continues an earlier call, but the template writes the past differently now.
    Rewritten,
}

/// What the model is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    pub growth: Growth,
    /// The conversation as the template writes it; equal to the decoded ids unless the
    /// template trims, or the tokenizer normalises, what the model wrote.
    pub rendered: String,
    messages: Vec<Message>,
    tools: Vec<ToolSpec>,
}

/// The calls of one rollout so far.
#[derive(Debug, Clone, Default)]
pub struct History {
    calls: Vec<PastCall>,
}

#[derive(Debug, Clone)]
struct PastCall {
    prompt: Prompt,
    response_ids: Vec<u32>,
    reply: Message,
}

impl History {
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a call: its prompt, the ids that the model wrote (the end-of-turn token
    /// included if it was sampled) and the message that the agent received.
    pub fn push(&mut self, prompt: Prompt, response_ids: Vec<u32>, reply: Message) {
        self.calls.push(PastCall { prompt, response_ids, reply });
    }

    /// Number of calls remembered.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

impl ChatFormat {
    /// The prompt for `request`, grown from the longest earlier call that it continues.
    ///
    /// A request continues a call if it begins with the call's messages, then has the
    /// assistant's message that the call returned (its text as sampled or, as clients of
    /// OpenAI's protocol send it, the text outside the tool calls and the calls), and offers
    /// the same tools.
    ///
    /// # Errors
    /// The template's or the tokenizer's.
    pub fn prompt(&self, history: &History, request: &ChatRequest) -> Result<Prompt, TextError> {
        let past = history
            .calls
            .iter()
            .filter(|call| self.continues(request, call))
            .max_by_key(|call| call.prompt.messages.len());
        let messages = past.map_or_else(
            || request.messages.clone(),
            |call| {
                let mut messages = call.prompt.messages.clone();
                messages.push(call.reply.clone());
                messages.extend_from_slice(&request.messages[messages.len()..]);
                messages
            },
        );
        let rendered = self.render(&messages, &request.tools, true)?;
        let mut prompt = Prompt {
            ids: Vec::new(),
            growth: Growth::Fresh,
            rendered,
            messages,
            tools: request.tools.clone(),
        };
        if let Some(call) = past {
            if let Some(tail) = self.tail(call, &prompt)? {
                prompt.ids.extend_from_slice(&call.prompt.ids);
                prompt.ids.extend_from_slice(&call.response_ids);
                prompt.growth = Growth::Extended { reused: prompt.ids.len() };
                prompt.ids.extend(self.ids(&tail)?);
                return Ok(prompt);
            }
            prompt.growth = Growth::Rewritten;
        }
        prompt.ids = self.ids(&prompt.rendered)?;
        Ok(prompt)
    }

    fn continues(&self, request: &ChatRequest, call: &PastCall) -> bool {
        let past = &call.prompt.messages;
        request.messages.len() > past.len()
            && request.tools == call.prompt.tools
            && self.same(&request.messages[past.len()], &call.reply)
            && request.messages.iter().zip(past).all(|(now, then)| self.same(now, then))
    }

    /// Whether `now` is the message `then`, whose text is as sampled.
    fn same(&self, now: &Message, then: &Message) -> bool {
        if now.role != then.role || now.name != then.name {
            return false;
        }
        if now.content == then.content {
            return now.role != Speaker::Assistant
                || now.tool_calls.is_empty()
                || now.tool_calls == then.tool_calls;
        }
        now.role == Speaker::Assistant
            && !now.tool_calls.is_empty()
            && now.tool_calls == then.tool_calls
            && now.content.trim() == self.tool_format().parse(&then.content, 0).content
    }

    /// What the template writes after the reply of `call`, less the stop token if the model
    /// sampled one; `None` if the template writes something else than `call` saw before the
    /// reply, or writes the reply itself differently (white space around it aside).
    fn tail(&self, call: &PastCall, prompt: &Prompt) -> Result<Option<String>, TextError> {
        let mut marked = prompt.messages.clone();
        marked[call.prompt.messages.len()] = Message::assistant(PLACE);
        let marked = self.render(&marked, &prompt.tools, true)?;
        let Some((before, after)) = marked.split_once(PLACE) else { return Ok(None) };
        if before != call.prompt.rendered || after.contains(PLACE) {
            return Ok(None);
        }
        let reply = prompt.rendered.strip_prefix(before).and_then(|r| r.strip_suffix(after));
        if reply.map(str::trim) != Some(call.reply.content.trim()) {
            return Ok(None);
        }
        let stopped = call.response_ids.last().is_some_and(|id| self.stop_ids().contains(id));
        let closing = if stopped { self.stop_text_before(after) } else { "" };
        Ok(Some(after[closing.len()..].to_owned()))
    }

    /// The stop token with which `text` begins, as text.
    fn stop_text_before<'t>(&self, text: &'t str) -> &'t str {
        let stops = self.stop_ids().iter().map(|&id| self.tokenizer().token_bytes(id));
        let longest = stops.filter(|stop| text.as_bytes().starts_with(stop)).map(<[u8]>::len).max();
        &text[..longest.unwrap_or(0)]
    }
}
