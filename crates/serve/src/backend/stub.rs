//! A backend without a model that returns scripted responses immediately.
//!
//! Protocol and gateway tests need known responses, and a load test needs a model with no cost.
//! Ids and log-probabilities are derived from the text, in the format of a real engine.

use std::sync::{Mutex, MutexGuard, PoisonError};

use leyden_core::{FinishReason, ToolCall};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Answer, Ask, Backend, Delta, Event, Failure, ModelCard, Prompt, Token};

/// The id of the end-of-turn token.
pub const END: u32 = 2;

/// Vocabulary size.
pub const VOCABULARY: u32 = 32_000;

/// The scripted response to one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Text followed by tool calls (name and arguments).
    Say { content: String, calls: Vec<(String, Value)> },
    /// A failure instead of the first event.
    Fail(Failure),
    /// Text, then a failure.
    Break(String, Failure),
    /// The channel closes after `Started`, without a final event.
    Vanish,
    /// No events yet: the test sends them itself, see [`Scripted::held`].
    Hold,
}

impl Reply {
    pub fn text(content: impl Into<String>) -> Self {
        Self::Say { content: content.into(), calls: Vec::new() }
    }

    pub fn call(name: &str, arguments: Value) -> Self {
        Self::Say { content: String::new(), calls: vec![(name.to_owned(), arguments)] }
    }
}

type Script = Box<dyn Fn(&Ask) -> Reply + Send + Sync>;

/// A [`Backend`] that follows a script.
///
/// ```
/// use leyden_serve::backend::stub::{Reply, Scripted};
///
/// let backend = Scripted::new("stub", |_| Reply::text("Hello."));
/// assert_eq!(backend.asks().len(), 0);
/// ```
pub struct Scripted {
    card: ModelCard,
    script: Script,
    streams: bool,
    keeps_asks: bool,
    policy_version: u64,
    asks: Mutex<Vec<Ask>>,
    held: Mutex<Vec<(Ask, UnboundedSender<Event>)>>,
}

impl Scripted {
    /// A model named `id` with a context of 4,096 tokens.
    pub fn new(id: &str, script: impl Fn(&Ask) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            card: ModelCard { id: id.to_owned(), created: 0, context: 4096 },
            script: Box::new(script),
            streams: true,
            keeps_asks: true,
            policy_version: 0,
            asks: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Returns the same response to every request and records none, for load tests.
    pub fn constant(id: &str, content: &str) -> Self {
        let reply = Reply::text(content);
        Self { keeps_asks: false, ..Self::new(id, move |_| reply.clone()) }
    }

    /// Disables deltas, which a backend is allowed to do.
    #[must_use]
    pub fn without_deltas(self) -> Self {
        Self { streams: false, ..self }
    }

    #[must_use]
    pub fn with_context(mut self, tokens: usize) -> Self {
        self.card.context = tokens;
        self
    }

    #[must_use]
    pub fn with_policy_version(self, policy_version: u64) -> Self {
        Self { policy_version, ..self }
    }

    /// All requests received so far.
    pub fn asks(&self) -> Vec<Ask> {
        lock(&self.asks).clone()
    }

    /// Takes the requests answered with [`Reply::Hold`], each with the sender of its events. A
    /// sender's `closed()` resolves once the request is cancelled.
    pub fn held(&self) -> Vec<(Ask, UnboundedSender<Event>)> {
        std::mem::take(&mut lock(&self.held))
    }
}

impl Backend for Scripted {
    fn models(&self) -> Vec<ModelCard> {
        vec![self.card.clone()]
    }

    fn submit(&self, ask: Ask) -> UnboundedReceiver<Event> {
        let (events, receiver) = unbounded_channel();
        if self.keeps_asks {
            lock(&self.asks).push(ask.clone());
        }
        let prompt_ids = prompt_ids(&ask.prompt);
        let (length, limit) = (prompt_ids.len(), self.card.context);
        if length >= limit {
            send(&events, Event::Failed(Failure::ContextLength { tokens: length, limit }));
            return receiver;
        }
        let started =
            Event::Started { prompt_ids: prompt_ids.clone(), policy_version: self.policy_version };
        match (self.script)(&ask) {
            Reply::Hold => lock(&self.held).push((ask, events)),
            Reply::Fail(failure) => send(&events, Event::Failed(failure)),
            Reply::Vanish => send(&events, started),
            Reply::Break(content, failure) => {
                send(&events, started);
                let tokens = tokens(&content, ask.top_logprobs);
                send(&events, Event::Delta(Delta { content, tokens, ..Delta::default() }));
                send(&events, Event::Failed(failure));
            }
            Reply::Say { content, calls } => {
                let generated = Generated::new(&ask, content, calls);
                if ask.stream && self.streams {
                    send(&events, started);
                    generated.deltas().for_each(|delta| send(&events, Event::Delta(delta)));
                }
                let answer = self.answer(&ask, prompt_ids, generated);
                send(&events, Event::Finished(Box::new(answer)));
            }
        }
        receiver
    }
}

impl Scripted {
    fn answer(&self, ask: &Ask, prompt_ids: Vec<u32>, generated: Generated) -> Answer {
        let Generated { content, mut tokens, calls, end, stop_text } = generated;
        let cut = end.is_none() && stop_text.is_none();
        let mut tool_calls = Vec::with_capacity(calls.len());
        for (call, markup) in calls {
            tool_calls.push(call);
            tokens.extend(markup);
        }
        tokens.extend(end);
        Answer {
            content,
            tool_calls,
            malformed_call: None,
            finish: if cut { FinishReason::Length } else { FinishReason::Stop },
            stop_text,
            prompt_ids,
            tokens,
            cached_tokens: 0,
            policy_version: self.policy_version,
            constrained: matches!(&ask.prompt, Prompt::Chat(r) if r.is_constrained()),
        }
    }
}

/// A dropped receiver means that the request was cancelled.
fn send(events: &UnboundedSender<Event>, event: Event) {
    let _ = events.send(event);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prompt_ids(prompt: &Prompt) -> Vec<u32> {
    match prompt {
        Prompt::Ids(ids) => ids.clone(),
        Prompt::Text(text) => pieces(text).map(id).collect(),
        Prompt::Chat(request) => {
            let of = |text| std::iter::once(1).chain(pieces(text).map(id));
            request.messages.iter().flat_map(|message| of(&message.content)).collect()
        }
    }
}

/// The response to a request, truncated at the first stop string and at the token limit.
struct Generated {
    content: String,
    /// The tokens of `content`.
    tokens: Vec<Token>,
    /// Each with the tokens of its markup.
    calls: Vec<(ToolCall, Vec<Token>)>,
    end: Option<Token>,
    stop_text: Option<String>,
}

impl Generated {
    fn new(ask: &Ask, mut content: String, calls: Vec<(String, Value)>) -> Self {
        let found = |stop: &String| content.find(stop.as_str()).map(|at| (at, stop.clone()));
        let stop = ask.stop.iter().filter_map(found).min();
        if let Some((at, _)) = stop {
            content.truncate(at);
        }
        let mut tokens = tokens(&content, ask.top_logprobs);
        let mut remaining = ask.sampling.max_tokens;
        if tokens.len() > remaining {
            tokens.truncate(remaining);
            content.truncate(tokens.iter().map(|token| token.bytes.len()).sum());
            return Self { content, tokens, calls: Vec::new(), end: None, stop_text: None };
        }
        remaining -= tokens.len();
        if let Some((_, text)) = stop {
            return Self { content, tokens, calls: Vec::new(), end: None, stop_text: Some(text) };
        }
        let mut done = Vec::with_capacity(calls.len());
        for (position, (name, arguments)) in calls.into_iter().enumerate() {
            let markup = json!({"name": name, "arguments": arguments}).to_string();
            let markup = self::tokens(&markup, ask.top_logprobs);
            if markup.len() > remaining {
                return Self { content, tokens, calls: done, end: None, stop_text: None };
            }
            remaining -= markup.len();
            let id = format!("{}{position}", ask.call_prefix);
            done.push((ToolCall { id, name, arguments }, markup));
        }
        let end = Token { id: END, logprob: -0.5, bytes: b"</s>".to_vec(), top: Vec::new() };
        let end = (remaining > 0).then_some(end);
        Self { content, tokens, calls: done, end, stop_text: None }
    }

    /// One delta per text token and one per tool call.
    fn deltas(&self) -> impl Iterator<Item = Delta> + '_ {
        let text = self.tokens.iter().map(|token| Delta {
            content: String::from_utf8_lossy(&token.bytes).into_owned(),
            tokens: vec![token.clone()],
            ..Delta::default()
        });
        let calls = self.calls.iter().map(|(call, markup)| Delta {
            tool_calls: vec![call.clone()],
            tokens: markup.clone(),
            ..Delta::default()
        });
        let end =
            self.end.iter().map(|end| Delta { tokens: vec![end.clone()], ..Delta::default() });
        text.chain(calls).chain(end)
    }
}

/// Splits text into pieces of up to four characters.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = text.char_indices().nth(4).map_or(text.len(), |(at, _)| at);
        let (piece, rest) = text.split_at(end);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn tokens(text: &str, top: usize) -> Vec<Token> {
    pieces(text).map(|piece| token(piece, top)).collect()
}

fn id(piece: &str) -> u32 {
    let hash = piece.bytes().fold(17_u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    3 + hash % (VOCABULARY - 3)
}

/// A token whose alternatives are itself and some invented ones.
fn token(piece: &str, top: usize) -> Token {
    let (id, bytes) = (id(piece), piece.as_bytes().to_vec());
    let logprob = -((id % 128) as f32) / 64.0;
    let alternative = |i: usize| (3 + i as u32, logprob - i as f32, format!("~{i}").into_bytes());
    let first = (top > 0).then(|| (id, logprob, bytes.clone()));
    let top = first.into_iter().chain((1..top.max(1)).map(alternative)).collect();
    Token { id, logprob, bytes, top }
}
