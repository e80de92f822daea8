//! A backend without a model: it says what a script tells it, at once.
//!
//! Tests of protocols and gateway need answers that are known beforehand, and a load test
//! needs a model that costs nothing. Ids and log-probabilities are made up from the text, in
//! the shape that an engine would give them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use leyden_core::{FinishReason, ToolCall};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Answer, Ask, Backend, Delta, Event, Failure, ModelCard, Prompt, Token};

/// The id of the end-of-turn token.
pub const END: u32 = 2;

/// Ids are below this.
pub const VOCABULARY: u32 = 32_000;

/// What is said to one ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Text, then calls: name and arguments.
    Say { content: String, calls: Vec<(String, Value)> },
    /// A failure instead of the first event.
    Fail(Failure),
    /// Text, then a failure.
    Break(String, Failure),
    /// The channel closes after the start, without an end.
    Vanish,
    /// Nothing yet: the test says it by hand, see [`Scripted::held`].
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

    /// Says the same to everybody and remembers nothing, as load tests want it.
    pub fn constant(id: &str, content: &str) -> Self {
        let reply = Reply::text(content);
        Self { keeps_asks: false, ..Self::new(id, move |_| reply.clone()) }
    }

    /// Never sends deltas, as a backend may.
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

    /// All asks so far.
    pub fn asks(&self) -> Vec<Ask> {
        lock(&self.asks).clone()
    }

    /// Takes the asks that were answered with [`Reply::Hold`] and where their events go. A
    /// sender's `closed()` returns once the ask is cancelled.
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
        let (tokens, limit) = (prompt_ids.len(), self.card.context);
        if tokens >= limit {
            send(&events, Event::Failed(Failure::ContextLength { tokens, limit }));
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
                let tokens = pieces(&content, ask.top_logprobs);
                send(&events, Event::Delta(Delta { content, tokens, ..Delta::default() }));
                send(&events, Event::Failed(failure));
            }
            Reply::Say { content, calls } => {
                let deltas = spoken(&ask, content, calls);
                let answer = self.answer(&ask, prompt_ids, &deltas);
                if ask.stream && self.streams {
                    send(&events, started);
                    deltas.into_iter().for_each(|delta| send(&events, Event::Delta(delta)));
                }
                send(&events, Event::Finished(Box::new(answer)));
            }
        }
        receiver
    }
}

impl Scripted {
    fn answer(&self, ask: &Ask, prompt_ids: Vec<u32>, deltas: &[Delta]) -> Answer {
        let joined = |text: String, delta: &Delta| text + &delta.content;
        let content = deltas.iter().fold(String::new(), joined);
        let tokens: Vec<Token> = deltas.iter().flat_map(|d| d.tokens.clone()).collect();
        let ended = tokens.last().is_some_and(|token| token.id == END);
        let full = tokens.len() >= ask.sampling.max_tokens;
        Answer {
            content,
            tool_calls: deltas.iter().flat_map(|d| d.tool_calls.clone()).collect(),
            malformed_call: None,
            finish: if full && !ended { FinishReason::Length } else { FinishReason::Stop },
            stop_text: if ended || full { None } else { ask.stop.first().cloned() },
            prompt_ids,
            tokens,
            cached_tokens: 0,
            policy_version: self.policy_version,
            constrained: matches!(&ask.prompt, Prompt::Chat(r) if r.is_constrained()),
        }
    }
}

/// A receiver that is gone has cancelled its ask.
fn send(events: &UnboundedSender<Event>, event: Event) {
    let _ = events.send(event);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prompt_ids(prompt: &Prompt) -> Vec<u32> {
    let of = |text: &str| pieces(text, 0).iter().map(|token| token.id).collect::<Vec<u32>>();
    match prompt {
        Prompt::Ids(ids) => ids.clone(),
        Prompt::Text(text) => of(text),
        Prompt::Chat(request) => {
            request.messages.iter().flat_map(|m| [vec![1], of(&m.content)].concat()).collect()
        }
    }
}

/// What is said to an ask: a delta for every token, cut at the first stop text and the limit.
fn spoken(ask: &Ask, mut content: String, calls: Vec<(String, Value)>) -> Vec<Delta> {
    let stop = ask.stop.iter().filter_map(|stop| content.find(stop.as_str())).min();
    if let Some(end) = stop {
        content.truncate(end);
    }
    let mut deltas: Vec<Delta> = pieces(&content, ask.top_logprobs)
        .into_iter()
        .map(|token| Delta {
            content: String::from_utf8_lossy(&token.bytes).into_owned(),
            tokens: vec![token],
            ..Delta::default()
        })
        .collect();
    if stop.is_none() {
        for (position, (name, arguments)) in calls.into_iter().enumerate() {
            let markup = json!({"name": name, "arguments": arguments}).to_string();
            let id = format!("{}{position}", ask.call_prefix);
            deltas.push(Delta {
                content: String::new(),
                tool_calls: vec![ToolCall { id, name, arguments }],
                tokens: pieces(&markup, ask.top_logprobs),
            });
        }
        let end = Token { id: END, logprob: -0.5, bytes: b"</s>".to_vec(), top: Vec::new() };
        deltas.push(Delta { tokens: vec![end], ..Delta::default() });
    }
    let mut room = ask.sampling.max_tokens;
    deltas
        .into_iter()
        .take_while(|delta| {
            let fits = delta.tokens.len() <= room;
            room = room.saturating_sub(delta.tokens.len());
            fits
        })
        .collect()
}

/// Tokens of up to four characters.
fn pieces(text: &str, top: usize) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(4).map(|piece| token(piece.iter().collect(), top)).collect()
}

fn token(text: String, top: usize) -> Token {
    let hash = text.bytes().fold(17_u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    let id = 3 + hash % (VOCABULARY - 3);
    let logprob = -((id % 128) as f32) / 64.0;
    let alternative = |i: usize| (3 + i as u32, logprob - i as f32, format!("~{i}").into_bytes());
    let bytes = text.into_bytes();
    let first = (top > 0).then(|| (id, logprob, bytes.clone()));
    let top = first.into_iter().chain((1..top.max(1)).map(alternative)).collect();
    Token { id, logprob, bytes, top }
}
