//! One request on its way: its tokens become deltas, and in the end an answer.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use leyden_core::{ChatReply, ChatRequest, FinishReason, Message, ToolCall};
use leyden_lm::generate::{Completion, Sampled, StopCheck};
use leyden_serve::backend::{Answer, Ask, Delta, Event, Failure, Token};
use leyden_text::{ChatFormat, Prompt, ReplyDelta, ReplyEnd, ReplyStream};
use tokio::sync::mpsc::UnboundedSender;

use crate::counters::Counters;
use crate::options::Options;

/// A request as it came in.
pub(crate) struct Arrival {
    pub ask: Ask,
    pub events: UnboundedSender<Event>,
    pub slot: Slot,
    /// Of all requests so far.
    pub number: u64,
    pub deadline: Instant,
}

/// A place among the requests that may be open at a time; given back when it is dropped.
pub(crate) struct Slot(Arc<Counters>);

impl Slot {
    /// `None` where `most` are taken.
    pub fn take(counters: &Arc<Counters>, most: usize) -> Option<Self> {
        let slot = Self(Arc::clone(counters));
        let before = counters.open.fetch_add(1, Ordering::Relaxed);
        (before < most).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the model continues.
pub(crate) enum Asked {
    Chat { prompt: Box<Prompt>, request: Box<ChatRequest> },
    Raw { ids: Vec<u32> },
}

impl Asked {
    pub fn ids(&self) -> &[u32] {
        match self {
            Self::Chat { prompt, .. } => &prompt.ids,
            Self::Raw { ids } => ids,
        }
    }
}

/// A request that is being answered.
pub(crate) struct Job {
    pub asked: Asked,
    pub writing: Writing,
    pub stop: Vec<String>,
    pub format: Arc<ChatFormat>,
    pub conversation: Option<String>,
    pub constrained: bool,
    pub stream: bool,
    pub deadline: Instant,
    /// Since when it waits for new weights.
    pub held_since: Option<Instant>,
    pub policy_version: u64,
    pub tokens: Vec<Token>,
    pub events: UnboundedSender<Event>,
    pub started: bool,
    pub slot: Slot,
}

/// What a conversation is to remember of a call.
pub(crate) struct Said {
    pub conversation: String,
    pub prompt: Prompt,
    pub response: Vec<u32>,
    pub reply: Message,
}

impl Job {
    /// Takes a token that was drawn, and tells the client where it listens.
    pub fn take(&mut self, sampled: Sampled) {
        let token = self.token(&sampled);
        self.start();
        let delta = self.writing.delta(sampled.id);
        if self.stream {
            let ReplyDelta { content, tool_calls } = delta;
            let delta = Delta { content, tool_calls, tokens: vec![token.clone()] };
            self.send(Event::Delta(delta));
        }
        self.tokens.push(token);
    }

    /// Answers. `remember` is told first what the conversation must know before the client can
    /// go on with it.
    pub fn finish(mut self, completion: Completion, remember: impl FnOnce(Said)) {
        self.start();
        let stopped = self.writing.stopped();
        let ReplyEnd { delta, content, reply } = self.writing.end(completion.finish);
        let stop_text = stopped.then(|| self.stop_text(&completion.ids, &reply.message.content));
        if self.stream && !delta.is_empty() {
            let ReplyDelta { content, tool_calls } = delta;
            self.send(Event::Delta(Delta { content, tool_calls, tokens: Vec::new() }));
        }
        let answer = Answer {
            content,
            tool_calls: reply.message.tool_calls.clone(),
            malformed_call: reply.malformed_call,
            finish: completion.finish,
            stop_text: stop_text.flatten(),
            prompt_ids: self.asked.ids().to_vec(),
            tokens: std::mem::take(&mut self.tokens),
            cached_tokens: completion.cached_tokens,
            policy_version: self.policy_version,
            constrained: self.constrained,
        };
        if let (Some(conversation), Asked::Chat { prompt, .. }) = (self.conversation, self.asked) {
            let response = completion.ids;
            remember(Said { conversation, prompt: *prompt, response, reply: reply.message });
        }
        // Before the client hears of it, so that its next request finds a place.
        drop(self.slot);
        let _ = self.events.send(Event::Finished(Box::new(answer)));
    }

    /// Tells the client why there is no answer.
    pub fn fail(self, failure: Failure) {
        drop(self.slot);
        let _ = self.events.send(Event::Failed(failure));
    }

    /// The stop text that follows `content` in the response.
    fn stop_text(&self, response: &[u32], content: &str) -> Option<String> {
        let text = self.format.tokenizer().decode(response, true);
        let rest = text.get(content.len()..)?;
        let found = self.stop.iter().filter(|stop| rest.starts_with(stop.as_str()));
        found.max_by_key(|stop| stop.len()).cloned()
    }

    /// What is said of a request that is late.
    pub fn late(&self, options: &Options) -> Failure {
        let seconds = options.deadline.as_secs_f64();
        let state = match (self.started, self.tokens.len()) {
            (false, _) => "it was still waiting for the model".to_owned(),
            (true, tokens) => format!("{tokens} tokens had been generated"),
        };
        Failure::Late(format!(
            "the answer was not complete within the server's deadline of {seconds} s; {state}"
        ))
    }

    /// Says that generation begins, the first time, to whoever listens. Not before there is a
    /// token: until then a failure can still become the status of the response.
    fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) && self.stream {
            let prompt_ids = self.asked.ids().to_vec();
            self.send(Event::Started { prompt_ids, policy_version: self.policy_version });
        }
    }

    fn send(&self, event: Event) {
        // Whether anybody listens is looked after between two forward passes.
        let _ = self.events.send(event);
    }

    fn token(&self, sampled: &Sampled) -> Token {
        let bytes = |id: u32| self.format.tokenizer().token_bytes(id).to_vec();
        let top = sampled.top.iter().map(|&(id, logprob)| (id, logprob, bytes(id)));
        Token {
            id: sampled.id,
            logprob: sampled.logprob,
            bytes: bytes(sampled.id),
            top: top.collect(),
        }
    }
}

/// The text of an answer as it grows.
///
/// Stop texts are found inside the engine's step, so that no pass is made in vain; the deltas
/// are taken from it after the step. Both look at one [`ReplyStream`], and each token is given
/// to it once.
#[derive(Clone)]
pub(crate) struct Writing(Arc<Mutex<Written>>);

struct Written {
    /// `None` once the answer is complete.
    stream: Option<ReplyStream>,
    /// What the engine's step made certain, by token, until it is taken.
    pending: VecDeque<ReplyDelta>,
    /// Begins the ids of tool calls.
    call_prefix: String,
    calls: usize,
    single_call: bool,
    stops: bool,
}

impl Writing {
    pub fn new(
        format: &Arc<ChatFormat>,
        request: &ChatRequest,
        stop: &[String],
        call_prefix: String,
    ) -> Self {
        let request = ChatRequest { stop: stop.to_vec(), ..request.clone() };
        Self(Arc::new(Mutex::new(Written {
            stream: Some(ReplyStream::new(format, &request)),
            pending: VecDeque::new(),
            call_prefix,
            calls: 0,
            single_call: request.single_call,
            stops: stop.iter().any(|stop| !stop.is_empty()),
        })))
    }

    /// What the engine asks after every token; `None` where nothing but the model ends the
    /// answer.
    pub fn stop_check(&self) -> Option<Box<dyn StopCheck>> {
        let asked = {
            let written = self.lock();
            written.stops || written.single_call
        };
        asked.then(|| Box::new(self.clone()) as Box<dyn StopCheck>)
    }

    /// What `id`, the latest token, makes certain.
    fn delta(&self, id: u32) -> ReplyDelta {
        let mut written = self.lock();
        match written.pending.pop_front() {
            Some(delta) => delta,
            None => written.push(id),
        }
    }

    /// Whether a stop text has been found.
    fn stopped(&self) -> bool {
        self.lock().stream.as_ref().is_some_and(ReplyStream::stopped)
    }

    fn end(&self, finish: FinishReason) -> ReplyEnd {
        let mut written = self.lock();
        let Some(stream) = written.stream.take() else {
            let reply = ChatReply::of(Message::assistant(""), finish);
            return ReplyEnd { delta: ReplyDelta::default(), content: String::new(), reply };
        };
        let mut end = stream.finish(finish);
        written.name(&mut end.delta.tool_calls);
        written.calls = 0;
        written.name(&mut end.reply.message.tool_calls);
        end
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn push(&mut self, id: u32) -> ReplyDelta {
        let mut delta = self.stream.as_mut().map(|stream| stream.push(id)).unwrap_or_default();
        self.name(&mut delta.tool_calls);
        delta
    }

    /// Gives the next calls of the answer their ids.
    fn name(&mut self, calls: &mut [ToolCall]) {
        for call in calls {
            call.id = format!("{}{}", self.call_prefix, self.calls);
            self.calls += 1;
        }
    }
}

impl StopCheck for Writing {
    fn stops(&mut self, id: u32) -> bool {
        let mut written = self.lock();
        let delta = written.push(id);
        written.pending.push_back(delta);
        let stopped = written.stream.as_ref().is_some_and(ReplyStream::stopped);
        stopped || (written.single_call && written.calls > 0)
    }
}
