//! The life of one request: its tokens become deltas, and finally an answer.

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

/// A request as received.
pub(crate) struct Arrival {
    pub ask: Ask,
    pub events: UnboundedSender<Event>,
    pub slot: Slot,
    /// Sequence number over all requests.
    pub number: u64,
    pub deadline: Instant,
}

/// One of the limited number of open requests; released on drop.
pub(crate) struct Slot(Arc<Counters>);

impl Slot {
    /// `None` if `limit` requests are open.
    pub fn take(counters: &Arc<Counters>, limit: usize) -> Option<Self> {
        let slot = Self(Arc::clone(counters));
        let before = counters.open.fetch_add(1, Ordering::Relaxed);
        (before < limit).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The prompt that the model continues.
pub(crate) enum Input {
    Chat { prompt: Box<Prompt>, request: Box<ChatRequest> },
    Raw { ids: Vec<u32> },
}

impl Input {
    pub fn ids(&self) -> &[u32] {
        match self {
            Self::Chat { prompt, .. } => &prompt.ids,
            Self::Raw { ids } => ids,
        }
    }
}

/// A request being answered.
pub(crate) struct Job {
    pub input: Input,
    pub reply_text: ReplyText,
    pub stop: Vec<String>,
    pub format: Arc<ChatFormat>,
    pub conversation: Option<String>,
    pub constrained: bool,
    pub stream: bool,
    pub deadline: Instant,
    /// When it began to wait for new weights.
    pub held_since: Option<Instant>,
    pub policy_version: u64,
    pub tokens: Vec<Token>,
    pub events: UnboundedSender<Event>,
    pub started: bool,
    pub slot: Slot,
}

/// A finished call, as its conversation records it.
pub(crate) struct FinishedCall {
    pub conversation: String,
    pub prompt: Prompt,
    pub response: Vec<u32>,
    pub reply: Message,
}

impl Job {
    /// Adds a sampled token, and sends a delta to a streaming client.
    pub fn take(&mut self, sampled: Sampled) {
        let token = self.token(&sampled);
        self.start();
        let delta = self.reply_text.delta(sampled.id);
        if self.stream {
            let ReplyDelta { content, tool_calls } = delta;
            let delta = Delta { content, tool_calls, tokens: vec![token.clone()] };
            self.send(Event::Delta(delta));
        }
        self.tokens.push(token);
    }

    /// Sends the answer. `remember` is called first, so that the conversation includes the call
    /// before the client can continue it.
    pub fn finish(mut self, completion: Completion, remember: impl FnOnce(FinishedCall)) {
        self.start();
        let stopped = self.reply_text.stopped();
        let ReplyEnd { delta, content, reply } = self.reply_text.end(completion.finish);
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
            prompt_ids: self.input.ids().to_vec(),
            tokens: std::mem::take(&mut self.tokens),
            cached_tokens: completion.cached_tokens,
            policy_version: self.policy_version,
            constrained: self.constrained,
        };
        if let (Some(conversation), Input::Chat { prompt, .. }) = (self.conversation, self.input) {
            let response = completion.ids;
            remember(FinishedCall {
                conversation,
                prompt: *prompt,
                response,
                reply: reply.message,
            });
        }
        // Before the answer is sent, so that the client's next request finds a free slot.
        drop(self.slot);
        let _ = self.events.send(Event::Finished(Box::new(answer)));
    }

    /// Sends the failure to the client.
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

    /// The failure of a request that missed its deadline.
    pub fn deadline_failure(&self, options: &Options) -> Failure {
        let seconds = options.deadline.as_secs_f64();
        let state = match (self.started, self.tokens.len()) {
            (false, _) => "it was still waiting for the model".to_owned(),
            (true, tokens) => format!("{tokens} tokens had been generated"),
        };
        Failure::Late(format!(
            "the answer was not complete within the server's deadline of {seconds} s; {state}"
        ))
    }

    /// Sends the start event once. Not before the first token: until then a failure can still
    /// become the status of the response.
    fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) && self.stream {
            let prompt_ids = self.input.ids().to_vec();
            self.send(Event::Started { prompt_ids, policy_version: self.policy_version });
        }
    }

    fn send(&self, event: Event) {
        // A closed channel is detected between two forward passes.
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

/// The text of an answer while it is generated.
///
/// Stop texts are detected inside the engine's step, so that no superfluous pass runs; the deltas
/// are taken after the step. Both use one [`ReplyStream`], which receives each token once.
#[derive(Clone)]
pub(crate) struct ReplyText(Arc<Mutex<ReplyState>>);

struct ReplyState {
    /// `None` once the answer is complete.
    stream: Option<ReplyStream>,
    /// Deltas produced inside the engine's step, by token, until they are taken.
    pending: VecDeque<ReplyDelta>,
    /// Prefix of the ids of tool calls.
    call_prefix: String,
    calls: usize,
    single_call: bool,
    stops: bool,
}

impl ReplyText {
    pub fn new(
        format: &Arc<ChatFormat>,
        request: &ChatRequest,
        stop: &[String],
        call_prefix: String,
    ) -> Self {
        let request = ChatRequest { stop: stop.to_vec(), ..request.clone() };
        Self(Arc::new(Mutex::new(ReplyState {
            stream: Some(ReplyStream::new(format, &request)),
            pending: VecDeque::new(),
            call_prefix,
            calls: 0,
            single_call: request.single_call,
            stops: stop.iter().any(|stop| !stop.is_empty()),
        })))
    }

    /// The engine's check after every token; `None` if only the model ends the answer.
    pub fn stop_check(&self) -> Option<Box<dyn StopCheck>> {
        let needed = {
            let written = self.lock();
            written.stops || written.single_call
        };
        needed.then(|| Box::new(self.clone()) as Box<dyn StopCheck>)
    }

    /// The delta produced by `id`, the latest token.
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

    fn lock(&self) -> MutexGuard<'_, ReplyState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplyState {
    fn push(&mut self, id: u32) -> ReplyDelta {
        let mut delta = self.stream.as_mut().map(|stream| stream.push(id)).unwrap_or_default();
        self.name(&mut delta.tool_calls);
        delta
    }

    /// Assigns ids to the next tool calls of the answer.
    fn name(&mut self, calls: &mut [ToolCall]) {
        for call in calls {
            call.id = format!("{}{}", self.call_prefix, self.calls);
            self.calls += 1;
        }
    }
}

impl StopCheck for ReplyText {
    fn stops(&mut self, id: u32) -> bool {
        let mut written = self.lock();
        let delta = written.push(id);
        written.pending.push_back(delta);
        let stopped = written.stream.as_ref().is_some_and(ReplyStream::stopped);
        stopped || (written.single_call && written.calls > 0)
    }
}
