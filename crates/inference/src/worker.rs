//! The thread that owns the engine.
//!
//! Between two forward passes, its loop receives messages, cancels requests whose client has
//! disconnected or whose deadline has passed, submits requests to the engine, runs one pass and
//! distributes its tokens. During a weight update no new requests are submitted; the running ones
//! finish first, so that each answer comes from one version of the weights.
//!
//! If a forward pass fails, the requests in it fail with the reason, and the others continue. If
//! the engine panics, all its requests fail and a new engine with the same weights replaces it,
//! since its memory may be inconsistent.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use leyden_lm::LmError;
use leyden_lm::formats::LoadedModel;
use leyden_lm::generate::{Completion, Engine, Limits, Ticket};
use leyden_lm::model::{LlamaConfig, Weights};
use leyden_serve::backend::Failure;
use tch::{Device, Kind, Tensor};

use crate::conversations::Conversations;
use crate::counters::{Counters, add};
use crate::job::Job;
use crate::options::Options;
use crate::prepare::Prepared;

/// A model and how to run it.
pub struct Model {
    pub config: LlamaConfig,
    pub weights: Weights,
    pub device: Device,
    pub limits: Limits,
    /// Number of parallel engines; see [`Engine::split`].
    pub engines: usize,
}

impl Model {
    /// A loaded model, computing in `kind` on `device`.
    ///
    /// # Errors
    /// If tensors are missing or memory is insufficient.
    pub fn of(
        loaded: &LoadedModel,
        (kind, device): (Kind, Device),
        limits: Limits,
    ) -> Result<Self, LmError> {
        let _guard = tch::no_grad_guard();
        let tensors: HashMap<&str, Tensor> = loaded
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.to_device(device)))
            .collect();
        let weights = Weights::from_lookup(&loaded.config, kind, |name| {
            let missing = || LmError::Tensor { name: name.to_owned(), what: "is missing".into() };
            tensors.get(name).ok_or_else(missing)
        })?;
        Ok(Self { config: loaded.config.clone(), weights, device, limits, engines: 1 })
    }

    fn engine(&self) -> Result<Engine, LmError> {
        let weights = self.weights.shallow_clone();
        Engine::new(self.config.clone(), weights, self.device, self.limits).split(self.engines)
    }
}

/// Messages to the engine's thread.
pub(crate) enum Message {
    Request(Box<Prepared>),
    Forget(Vec<u64>),
    Pause(SyncSender<()>),
    Resume,
    Weights {
        weights: Weights,
        version: u64,
        done: SyncSender<()>,
    },
    /// The server shuts down; requests open at that time fail.
    EndBy(Instant),
}

/// How long an idle engine waits for a further request: prompts computed in one batch finish sooner
/// than one after the other.
const BATCH_WAIT: Duration = Duration::from_millis(1);
/// Longest such wait, while more requests are being prepared.
const MAX_BATCH_WAIT: Duration = Duration::from_millis(50);

/// How often held requests are checked if nothing else happens.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The engine's thread.
pub(crate) struct Worker {
    model: Model,
    engine: Engine,
    conversations: Arc<Conversations>,
    counters: Arc<Counters>,
    options: Options,
    messages: Receiver<Message>,
    /// Not yet submitted to the engine.
    held: VecDeque<Prepared>,
    running: HashMap<Ticket, Job>,
    version: u64,
    paused: bool,
    /// Actions that wait until no request runs.
    when_idle: VecDeque<WhenIdle>,
    end_by: Option<Instant>,
}

enum WhenIdle {
    Pause(SyncSender<()>),
    Weights { weights: Weights, version: u64, done: SyncSender<()> },
}

impl Worker {
    pub fn new(
        model: Model,
        conversations: Arc<Conversations>,
        counters: Arc<Counters>,
        options: Options,
        messages: Receiver<Message>,
    ) -> Result<Self, LmError> {
        let engine = model.engine()?;
        Ok(Self {
            model,
            engine,
            conversations,
            counters,
            options,
            messages,
            held: VecDeque::new(),
            running: HashMap::new(),
            version: 0,
            paused: false,
            when_idle: VecDeque::new(),
            end_by: None,
        })
    }

    /// Serves until all senders are gone and every request is answered.
    pub fn run(mut self) {
        // libtorch stores this number per thread.
        tch::set_num_threads(i32::try_from(self.options.threads).unwrap_or(i32::MAX));
        while self.handle_messages() {
            self.wait_for_batch();
            self.end_expired();
            self.exchange_when_idle();
            self.submit_held();
            if !self.running.is_empty() {
                self.step();
                // Before the next message is awaited: the one who waits for an exchange may be
                // the only one who would send it.
                self.exchange_when_idle();
            }
            self.counters.running.store(self.running.len(), Ordering::Relaxed);
        }
    }

    /// Handles all pending messages; blocks for one if there is nothing to do. Returns `false` once
    /// all work is done and all senders are gone.
    fn handle_messages(&mut self) -> bool {
        loop {
            let message = if !self.running.is_empty() || (self.may_run() && !self.held.is_empty()) {
                self.messages.try_recv()
            } else if self.held.is_empty() {
                self.messages.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.messages.recv_timeout(CHECK_INTERVAL).map_err(|e| match e {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
            };
            match message {
                Ok(message) => self.handle(message),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    // No sender is left that could update the weights.
                    self.paused = false;
                    return !self.running.is_empty() || !self.held.is_empty();
                }
            }
        }
    }

    /// If nothing runs yet, waits for requests that arrive together with the first.
    fn wait_for_batch(&mut self) {
        if !self.running.is_empty() || self.held.is_empty() || !self.may_run() {
            return;
        }
        let began = Instant::now();
        while began.elapsed() < MAX_BATCH_WAIT {
            match self.messages.recv_timeout(BATCH_WAIT) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {
                    let open = self.counters.open.load(Ordering::Relaxed);
                    if open <= self.held.len() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Request(prepared) => self.held.push_back(*prepared),
            Message::Forget(keys) => self.forget(&keys),
            Message::Pause(done) => self.when_idle.push_back(WhenIdle::Pause(done)),
            Message::Resume => self.paused = false,
            Message::Weights { weights, version, done } => {
                self.when_idle.push_back(WhenIdle::Weights { weights, version, done });
            }
            Message::EndBy(time) => {
                self.end_by = Some(time);
                self.paused = false;
            }
        }
        self.exchange_when_idle();
    }

    fn exchange_when_idle(&mut self) {
        while self.running.is_empty()
            && let Some(what) = self.when_idle.pop_front()
        {
            match what {
                WhenIdle::Pause(done) => {
                    self.paused = true;
                    let _ = done.send(());
                }
                WhenIdle::Weights { weights, version, done } => {
                    self.model.weights = weights.shallow_clone();
                    self.engine.set_weights(weights);
                    self.version = version;
                    self.counters.policy_version.store(version, Ordering::Relaxed);
                    self.paused = false;
                    let _ = done.send(());
                }
            }
        }
    }

    /// Ends requests whose client has disconnected or whose deadline has passed.
    fn end_expired(&mut self) {
        let now = Instant::now();
        let ends = self.end_by.is_some_and(|end| end <= now);
        let outcome = |job: &Job| {
            if job.events.is_closed() {
                Some(None)
            } else if ends {
                Some(Some(Failure::ShuttingDown))
            } else if job.deadline <= now {
                Some(Some(job.deadline_failure(&self.options)))
            } else {
                let held = job.held_since.map(|since| now - since);
                held.filter(|&held| held > self.options.update_wait)
                    .map(|_| Some(weights_updating()))
            }
        };
        let expired: Vec<(Ticket, Option<Failure>)> = self
            .running
            .iter()
            .filter_map(|(&ticket, job)| outcome(job).map(|failure| (ticket, failure)))
            .collect();
        let mut ended = Vec::new();
        for (ticket, failure) in expired {
            self.engine.cancel(ticket);
            ended.extend(self.running.remove(&ticket).map(|job| (job, failure)));
        }
        for mut prepared in std::mem::take(&mut self.held) {
            match outcome(&prepared.job) {
                Some(failure) => ended.push((prepared.job, failure)),
                None => {
                    if !self.may_run() {
                        prepared.job.held_since.get_or_insert(now);
                    }
                    self.held.push_back(prepared);
                }
            }
        }
        for (job, failure) in ended {
            match failure {
                None => add(&self.counters.cancelled, 1),
                Some(failure) => self.fail(job, failure),
            }
        }
    }

    fn may_run(&self) -> bool {
        !self.paused && self.when_idle.is_empty()
    }

    fn submit_held(&mut self) {
        while self.may_run()
            && let Some(Prepared { request, mut job }) = self.held.pop_front()
        {
            job.held_since = None;
            job.policy_version = self.version;
            let ticket = self.engine.submit(request);
            self.running.insert(ticket, job);
        }
    }

    /// Runs one forward pass and distributes its results.
    fn step(&mut self) {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.engine.step()));
        let (sampled, error) = match stepped {
            Ok(Ok(sampled)) => (sampled, None),
            // The engine ends the running requests and continues with the waiting ones.
            Ok(Err(error)) => (Vec::new(), Some(error.to_string())),
            Err(panic) => return self.restart(&panic_message(&*panic)),
        };
        for token in sampled {
            if let Some(job) = self.running.get_mut(&token.ticket) {
                job.take(token);
            }
        }
        let finished = self.engine.take_finished();
        if let Some(error) = error {
            eprintln!("leyden: a forward pass failed: {error}");
            if finished.is_empty() {
                // It would fail again indefinitely.
                return self.restart(&error);
            }
        }
        for (ticket, result) in finished {
            if let Some(job) = self.running.remove(&ticket) {
                self.finish(job, result);
            }
        }
    }

    fn finish(&mut self, job: Job, result: Result<Completion, LmError>) {
        let completion = match result {
            Ok(completion) => completion,
            Err(error) => return self.fail(job, failure_of(error)),
        };
        add(&self.counters.finished, 1);
        add(&self.counters.prompt_tokens, job.input.ids().len());
        add(&self.counters.cached_tokens, completion.cached_tokens);
        add(&self.counters.generated_tokens, completion.ids.len());
        let conversations = Arc::clone(&self.conversations);
        let mut forgotten = Vec::new();
        // The conversation must include the call before the client can continue it.
        job.finish(completion, |call| {
            forgotten =
                conversations.push(&call.conversation, call.prompt, call.response, call.reply);
        });
        self.forget(&forgotten);
    }

    fn fail(&self, job: Job, failure: Failure) {
        add(&self.counters.failed, 1);
        job.fail(failure);
    }

    fn forget(&mut self, keys: &[u64]) {
        for &key in keys {
            self.engine.forget(key);
        }
    }

    /// Fails the running requests and continues with a new engine.
    fn restart(&mut self, why: &str) {
        eprintln!("leyden: the engine failed and is restarted: {why}");
        for (_, job) in std::mem::take(&mut self.running) {
            self.fail(job, Failure::Internal(why.to_owned()));
        }
        match self.model.engine() {
            Ok(engine) => self.engine = engine,
            // Keep the old engine.
            Err(error) => eprintln!("leyden: the engine could not be recreated: {error}"),
        }
    }
}

fn weights_updating() -> Failure {
    let message = "the model's weights are being updated; try again later".to_owned();
    Failure::Busy { retry_after_seconds: 5, message }
}

/// Maps the engine's error for one request to a failure.
fn failure_of(error: LmError) -> Failure {
    let invalid = |param: Option<&str>, message: String| Failure::Invalid {
        param: param.map(str::to_owned),
        message,
    };
    match error {
        LmError::PromptTooLong { tokens, limit } => Failure::ContextLength { tokens, limit },
        LmError::TokenOutside { .. } => invalid(Some("prompt"), error.to_string()),
        LmError::Invalid(message) => invalid(None, message),
        other => Failure::Internal(other.to_string()),
    }
}

/// A panic's message.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "without a message".to_owned()))
}
