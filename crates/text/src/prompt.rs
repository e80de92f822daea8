//! Prompts that grow by tokens.
//!
//! The second call of a rollout shows the model its own output of the first. Rendering and
//! re-tokenising the whole conversation may give other tokens than the model sampled (BPE allows
//! many spellings of one text); then prefix caches miss, prefixes of a rollout do not merge, and
//! the trainer sees actions that were never taken. Therefore the ids of the next prompt are the ids
//! of the last prompt, the ids of the response, and the tokens of the tail: what the template
//! writes after the assistant's text. The tail is found by rendering the conversation with a
//! placeholder in place of that text.
//!
//! Some templates rewrite earlier messages (Qwen3 drops the thinking of earlier turns). Then the
//! prompt is tokenised afresh and marked [`Growth::Rewritten`], which the trainer counts.
//!
//! A response ended by a stop text contains tokens that the agent never saw: those of the stop
//! text. They are part of the action, since the model sampled them, but not of the next prompt. The
//! next prompt keeps the sampled ids up to the token in which the stop text begins; that token's
//! remaining part of the answer is tokenised with the tail. So both prompts share all ids before
//! the cut, and the later one contains the text the agent received.

use leyden_core::{ChatRequest, Message, Speaker, ToolCall, ToolSpec};
use serde_json::Value;

use crate::chat_format::PLACE;
use crate::control::Rendering;
use crate::{ChatFormat, TextError, TextStream};

/// How a prompt relates to earlier calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It begins with the `reused` ids of an earlier prompt and its response, the latter up to the
    /// stop text if one ended it.
    Extended { reused: usize },
    /// It continues no earlier call of this rollout.
    Fresh,
    /// It continues an earlier call, but the template now renders the earlier messages differently.
    Rewritten,
}

/// A model's prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    pub growth: Growth,
    /// The conversation as rendered by the template; equal to the decoded ids unless the template
    /// trims, or the tokenizer normalises, the model's output.
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

    /// Adds a call: its prompt, the sampled ids (including the end-of-turn token and the stop
    /// text's tokens if they were sampled) and the message that the agent received, its text as
    /// sampled up to the stop text.
    pub fn push(&mut self, prompt: Prompt, response_ids: Vec<u32>, reply: Message) {
        self.calls.push(PastCall { prompt, response_ids, reply });
    }

    /// Number of calls.
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
    /// A request continues a call if it begins with the call's messages, then has the assistant's
    /// message that the call returned, and offers the same tools. The message may contain the text
    /// as sampled or, as clients of OpenAI's protocol send it, the text outside the tool calls and
    /// the calls, possibly trimmed and with the client's own ids.
    ///
    /// # Errors
    /// Errors of the template or the tokenizer.
    pub fn prompt(&self, history: &History, request: &ChatRequest) -> Result<Prompt, TextError> {
        let past =
            history.calls.iter().filter(|call| self.continues(request, call)).max_by_key(|call| {
                let length = call.prompt.messages.len();
                (length, request.messages[length].content == call.reply.content)
            });
        let messages = past.map_or_else(
            || request.messages.clone(),
            |call| {
                let mut messages = call.prompt.messages.clone();
                messages.push(call.reply.clone());
                messages.extend_from_slice(&request.messages[messages.len()..]);
                messages
            },
        );
        let rendering = self.rendering(&messages, request.offered_tools(), true)?;
        let mut prompt = Prompt {
            ids: Vec::new(),
            growth: Growth::Fresh,
            rendered: rendering.text.clone(),
            messages,
            tools: request.offered_tools().to_vec(),
        };
        if let Some(call) = past {
            if let Some((kept, tail)) = self.tail(call, &prompt)? {
                prompt.ids.extend_from_slice(&call.prompt.ids);
                prompt.ids.extend_from_slice(&call.response_ids[..kept]);
                prompt.growth = Growth::Extended { reused: prompt.ids.len() };
                prompt.ids.extend(self.rendering_ids(&tail)?);
                return Ok(prompt);
            }
            prompt.growth = Growth::Rewritten;
        }
        prompt.ids = self.rendering_ids(&rendering)?;
        Ok(prompt)
    }

    fn continues(&self, request: &ChatRequest, call: &PastCall) -> bool {
        let past = &call.prompt.messages;
        request.messages.len() > past.len()
            && request.offered_tools() == call.prompt.tools
            && self.same(&request.messages[past.len()], &call.reply)
            && request.messages.iter().zip(past).all(|(now, then)| self.same(now, then))
    }

    /// Whether `now` is the same message as `then`; text generated by the model must be as sampled.
    fn same(&self, now: &Message, then: &Message) -> bool {
        if then.role != Speaker::Assistant {
            return now.role == then.role && now.name == then.name && now.content == then.content;
        }
        let named_alike = then.name.is_none() || now.name == then.name;
        if now.role != then.role || !named_alike {
            return false;
        }
        let calls = same_calls(&now.tool_calls, &then.tool_calls);
        let text = now.content.trim();
        if text == then.content.trim() {
            return calls || now.tool_calls.is_empty();
        }
        calls && text == self.tool_format().parse(&then.content, 0).content
    }

    /// Number of response ids that the next prompt keeps, and the template's text after them,
    /// without the stop token if it is among them; `None` if the template writes other text before
    /// the reply than in `call`, or writes the reply itself differently (except for surrounding
    /// white space).
    fn tail(
        &self,
        call: &PastCall,
        prompt: &Prompt,
    ) -> Result<Option<(usize, Rendering)>, TextError> {
        let mut marked = prompt.messages.clone();
        marked[call.prompt.messages.len()] = Message::assistant(PLACE);
        let marked = self.rendering(&marked, &prompt.tools, true)?;
        let Some((before, after)) = marked.text.split_once(PLACE) else { return Ok(None) };
        if before != call.prompt.rendered || after.contains(PLACE) {
            return Ok(None);
        }
        let reply = prompt.rendered.strip_prefix(before).and_then(|r| r.strip_suffix(after));
        if reply.map(str::trim) != Some(call.reply.content.trim()) {
            return Ok(None);
        }
        if let Some((kept, rest)) = self.before_stop_text(call) {
            return Ok(Some((kept, marked.tail(marked.text.len() - after.len(), rest))));
        }
        let stopped = call.response_ids.last().is_some_and(|id| self.stop_ids().contains(id));
        let closing = if stopped { self.stop_text_before(after) } else { "" };
        let from = marked.text.len() - after.len() + closing.len();
        Ok(Some((call.response_ids.len(), marked.tail(from, ""))))
    }

    /// For a response that continues past its reply because a stop text ended it: the number of
    /// tokens wholly within the reply, and the remaining text of the reply.
    fn before_stop_text<'c>(&self, call: &'c PastCall) -> Option<(usize, &'c str)> {
        let reply = call.reply.content.as_str();
        let body = match call.response_ids.split_last() {
            Some((last, body)) if self.stop_ids().contains(last) => body,
            _ => &call.response_ids,
        };
        let sampled = self.tokenizer().decode(body, true);
        if sampled.len() <= reply.len() || !sampled.starts_with(reply) {
            return None;
        }
        let (mut kept, mut spelt) = (0, 0);
        let mut stream = TextStream::new();
        for (index, &id) in body.iter().enumerate() {
            if spelt == reply.len() {
                break;
            }
            stream.push(self.tokenizer(), id);
            if stream.text().len() > reply.len() {
                break;
            }
            if !stream.is_within_character() {
                (kept, spelt) = (index + 1, stream.text().len());
            }
        }
        Some((kept, &reply[spelt..]))
    }

    /// The stop token at the beginning of `text`, as text.
    fn stop_text_before<'t>(&self, text: &'t str) -> &'t str {
        let stops = self.stop_ids().iter().map(|&id| self.tokenizer().token_bytes(id));
        let longest = stops.filter(|stop| text.as_bytes().starts_with(stop)).map(<[u8]>::len).max();
        &text[..longest.unwrap_or(0)]
    }
}

/// Whether the calls are equal except for their ids, which clients may replace.
fn same_calls(now: &[ToolCall], then: &[ToolCall]) -> bool {
    let pairs = || now.iter().zip(then);
    now.len() == then.len()
        && pairs().all(|(a, b)| a.name == b.name && same_json(&a.arguments, &b.arguments))
}

/// Whether two JSON values are equal, comparing numbers by value: JavaScript clients send `2.0` as
/// `2`.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a)| b.get(key).is_some_and(|b| same_json(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}
