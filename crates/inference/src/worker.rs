//! The thread that owns the engine.
//!
//! Its loop does, between two forward passes: take in what has been prepared, drop what nobody
//! waits for or what is late, hand requests to the engine, run one pass, hand out its tokens.
//! While weights are exchanged nothing new is handed to the engine; what runs ends first, so
//! that every answer was written by one version of the weights.
//!
//! Should a forward pass fail, the requests in it fail with the reason, and the others go on.
//! Should the engine panic, all its requests fail, and a new engine with the same weights takes
//! its place: what it held in memory may be half written.

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

/// What an engine is made of.
pub struct Model {
    pub config: LlamaConfig,
    pub weights: Weights,
    pub device: Device,
    pub limits: Limits,
    /// Engines side by side; see [`Engine::split`].
    pub engines: usize,
}

impl Model {
    /// A model as it was loaded, computing in `kind` on `device`.
    ///
    /// # Errors
    /// Missing tensors, too little memory.
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

/// What the engine's thread is told.
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
    /// The server goes down; what is open at that time fails.
    EndBy(Instant),
}

/// How long an idle engine waits for another request that comes with the first: prompts that are
/// computed together are done sooner than one after the other.
const COMPANY: Duration = Duration::from_millis(1);
/// Longest such wait, while more requests are being prepared.
const LONGEST_GATHERING: Duration = Duration::from_millis(50);

/// How often requests that are held back are looked after where nothing else happens.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// The engine's thread.
pub(crate) struct Worker {
    model: Model,
    engine: Engine,
    conversations: Arc<Conversations>,
    counters: Arc<Counters>,
    options: Options,
    orders: Receiver<Message>,
    /// Not handed to the engine yet.
    held: VecDeque<Prepared>,
    running: HashMap<Ticket, Job>,
    version: u64,
    paused: bool,
    /// What waits until no request runs.
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
        orders: Receiver<Message>,
    ) -> Result<Self, LmError> {
        let engine = model.engine()?;
        Ok(Self {
            model,
            engine,
            conversations,
            counters,
            options,
            orders,
            held: VecDeque::new(),
            running: HashMap::new(),
            version: 0,
            paused: false,
            when_idle: VecDeque::new(),
            end_by: None,
        })
    }

    /// Serves until nobody can ask any more and all is answered.
    pub fn run(mut self) {
        // libtorch keeps this number for each thread.
        tch::set_num_threads(i32::try_from(self.options.threads).unwrap_or(i32::MAX));
        while self.take_orders() {
            self.gather();
            self.look_after();
            self.exchange_when_idle();
            self.hand_over();
            if !self.running.is_empty() {
                self.step();
            }
            self.counters.running.store(self.running.len(), Ordering::Relaxed);
        }
    }

    /// Takes in all orders that are there; waits for one where there is nothing to do.
    /// `false` once there is nothing left and nobody who could send more.
    fn take_orders(&mut self) -> bool {
        loop {
            let order = if !self.running.is_empty() || (self.may_run() && !self.held.is_empty()) {
                self.orders.try_recv()
            } else if self.held.is_empty() {
                self.orders.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.orders.recv_timeout(LOOK_AFTER).map_err(|e| match e {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
            };
            match order {
                Ok(order) => self.obey(order),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    // Nobody is left who could exchange the weights.
                    self.paused = false;
                    return !self.running.is_empty() || !self.held.is_empty();
                }
            }
        }
    }

    /// Where nothing runs yet, waits for the requests that arrive together with the first.
    fn gather(&mut self) {
        if !self.running.is_empty() || self.held.is_empty() || !self.may_run() {
            return;
        }
        let began = Instant::now();
        while began.elapsed() < LONGEST_GATHERING {
            match self.orders.recv_timeout(COMPANY) {
                Ok(order) => self.obey(order),
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

    fn obey(&mut self, order: Message) {
        match order {
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

    /// Ends what nobody waits for and what is late.
    fn look_after(&mut self) {
        let now = Instant::now();
        let ends = self.end_by.is_some_and(|end| end <= now);
        let verdict = |job: &Job| {
            if job.events.is_closed() {
                Some(None)
            } else if ends {
                Some(Some(Failure::ShuttingDown))
            } else if job.deadline <= now {
                Some(Some(job.late(&self.options)))
            } else {
                let held = job.held_since.map(|since| now - since);
                held.filter(|&held| held > self.options.update_wait).map(|_| Some(updating()))
            }
        };
        let over: Vec<(Ticket, Option<Failure>)> = self
            .running
            .iter()
            .filter_map(|(&ticket, job)| verdict(job).map(|failure| (ticket, failure)))
            .collect();
        let mut ended = Vec::new();
        for (ticket, failure) in over {
            self.engine.cancel(ticket);
            ended.extend(self.running.remove(&ticket).map(|job| (job, failure)));
        }
        for mut prepared in std::mem::take(&mut self.held) {
            match verdict(&prepared.job) {
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

    fn hand_over(&mut self) {
        while self.may_run()
            && let Some(Prepared { request, mut job }) = self.held.pop_front()
        {
            job.held_since = None;
            job.policy_version = self.version;
            let ticket = self.engine.submit(request);
            self.running.insert(ticket, job);
        }
    }

    /// One forward pass, and what came of it.
    fn step(&mut self) {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.engine.step()));
        let (sampled, error) = match stepped {
            Ok(Ok(sampled)) => (sampled, None),
            // The engine ends what ran and goes on with what waits.
            Ok(Err(error)) => (Vec::new(), Some(error.to_string())),
            Err(panic) => return self.start_over(&described(&*panic)),
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
                // It would fail again, for ever.
                return self.start_over(&error);
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
        add(&self.counters.prompt_tokens, job.asked.ids().len());
        add(&self.counters.cached_tokens, completion.cached_tokens);
        add(&self.counters.generated_tokens, completion.ids.len());
        let conversations = Arc::clone(&self.conversations);
        let mut forgotten = Vec::new();
        // The conversation must know the call before the client can go on with it.
        job.finish(completion, |said| {
            forgotten =
                conversations.push(&said.conversation, said.prompt, said.response, said.reply);
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

    /// Fails what runs and goes on with a new engine.
    fn start_over(&mut self, why: &str) {
        eprintln!("leyden: the engine failed and starts anew: {why}");
        for (_, job) in std::mem::take(&mut self.running) {
            self.fail(job, Failure::Internal(why.to_owned()));
        }
        match self.model.engine() {
            Ok(engine) => self.engine = engine,
            // Then the old one has to do.
            Err(error) => eprintln!("leyden: there is no new engine: {error}"),
        }
    }
}

fn updating() -> Failure {
    let message = "the model's weights are being updated; try again later".to_owned();
    Failure::Busy { retry_after_seconds: 5, message }
}

/// The engine's refusal of one request.
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

/// What a panic said.
pub(crate) fn described(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "without saying why".to_owned()))
}
