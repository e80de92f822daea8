//! The handle to the engine that a server holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leyden_lm::LmError;
use leyden_lm::model::Weights;
use leyden_serve::backend::{Ask, Backend, Event, Failure, Figure, ModelCard};
use leyden_text::ChatFormat;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::conversations::Conversations;
use crate::counters::{Counters, Stats, add};
use crate::job::{Arrival, Slot};
use crate::options::Options;
use crate::prepare::{self, Preparation};
use crate::worker::{Message, Model, Worker};

/// Threads that render and tokenise prompts; more would take cores from the engine.
const PREPARING: usize = 2;

/// Serves a model in this process as a server's [`Backend`].
///
/// Dropping it ends its threads; requests that are open then are answered first.
pub struct EngineBackend {
    /// `None` once the backend is shut down.
    open: Mutex<Option<Senders>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    counters: Arc<Counters>,
    conversations: Arc<Conversations>,
    options: Options,
    number: AtomicU64,
}

/// Senders of requests and messages. The threads end when both channels are closed.
#[derive(Clone)]
struct Senders {
    arrivals: Sender<Arrival>,
    messages: Sender<Message>,
}

impl EngineBackend {
    /// Starts the threads that serve `model` with `format`.
    ///
    /// # Errors
    /// If the engine cannot be created or the threads cannot be started.
    pub fn start(
        model: Model,
        format: Arc<ChatFormat>,
        mut options: Options,
    ) -> Result<Self, LmError> {
        // No request can be longer than the cache.
        options.card.context = model.limits.context.min(model.limits.cache_tokens);
        let counters = Arc::new(Counters::default());
        let conversations = Arc::new(Conversations::new(options.history_tokens));
        let (arrivals, arriving) = channel();
        let (messages, ordered) = channel();
        let worker = Worker::new(
            model,
            Arc::clone(&conversations),
            Arc::clone(&counters),
            options.clone(),
            ordered,
        )?;
        let preparation = Arc::new(Preparation::new(
            format,
            Arc::clone(&conversations),
            Arc::clone(&counters),
            options.clone(),
        ));
        let arriving = Arc::new(Mutex::new(arriving));
        let mut threads = vec![named("leyden-engine", move || worker.run())?];
        for _ in 0..PREPARING {
            let (preparation, arriving) = (Arc::clone(&preparation), Arc::clone(&arriving));
            let messages = messages.clone();
            let run = move || prepare::run(&preparation, &arriving, &messages);
            threads.push(named("leyden-prepare", run)?);
        }
        Ok(Self {
            open: Mutex::new(Some(Senders { arrivals, messages })),
            threads: Mutex::new(threads),
            counters,
            conversations,
            options,
            number: AtomicU64::new(0),
        })
    }

    /// Counters for metrics.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Forgets a conversation: its history and its cache entries.
    pub fn forget(&self, conversation: &str) {
        if let Some(key) = self.conversations.forget(conversation) {
            self.send_message(Message::Forget(vec![key]));
        }
    }

    /// Holds back new requests and returns once the running ones have ended, so that the owner of
    /// the weights may change them. New requests wait until [`EngineBackend::set_weights`] or
    /// [`EngineBackend::resume`].
    pub fn pause(&self) {
        self.wait_for(Message::Pause);
    }

    /// Processes the requests that were held back.
    pub fn resume(&self) {
        self.send_message(Message::Resume);
    }

    /// Replaces the weights with others of the same shape and type, between requests: running
    /// requests finish with the old weights, new ones wait. Every answer carries the `version` of
    /// the weights that produced it.
    pub fn set_weights(&self, weights: Weights, version: u64) {
        self.wait_for(|done| Message::Weights { weights, version, done });
    }

    /// Accepts no more requests, waits for the open ones for at most `grace`, fails the rest, and
    /// ends the threads. Later calls do nothing.
    pub fn shut_down(&self, grace: Duration) {
        let Some(senders) = self.lock_open().take() else { return };
        let _ = senders.messages.send(Message::EndBy(Instant::now() + grace));
        drop(senders);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread that panicked needs no further clean-up.
            let _ = thread.join();
        }
    }

    fn send_message(&self, message: Message) {
        if let Some(senders) = &*self.lock_open() {
            let _ = senders.messages.send(message);
        }
    }

    /// Sends a message and waits until it is handled, or the backend is shut down.
    fn wait_for(&self, message: impl FnOnce(std::sync::mpsc::SyncSender<()>) -> Message) {
        let (done, receiver): (_, Receiver<()>) = sync_channel(1);
        self.send_message(message(done));
        let _ = receiver.recv();
    }

    fn lock_open(&self) -> std::sync::MutexGuard<'_, Option<Senders>> {
        lock(&self.open)
    }

    fn enqueue(&self, ask: Ask, events: &Events) -> Result<(), Failure> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let most = self.options.max_requests;
        let slot = Slot::take(&self.counters, most).ok_or_else(|| {
            add(&self.counters.refused, 1);
            let message = format!("{most} requests are open already; try again later");
            Failure::Busy { retry_after_seconds: 1, message }
        })?;
        let deadline = Instant::now() + self.options.deadline;
        let arrival = Arrival { ask, events: events.clone(), slot, number, deadline };
        let open = self.lock_open();
        let senders = open.as_ref().ok_or(Failure::ShuttingDown)?;
        senders.arrivals.send(arrival).map_err(|_| Failure::ShuttingDown)
    }
}

type Events = tokio::sync::mpsc::UnboundedSender<Event>;

impl Backend for EngineBackend {
    fn models(&self) -> Vec<ModelCard> {
        vec![self.options.card.clone()]
    }

    fn submit(&self, ask: Ask) -> UnboundedReceiver<Event> {
        let (events, receiver) = unbounded_channel();
        if let Err(failure) = self.enqueue(ask, &events) {
            let _ = events.send(Event::Failed(failure));
        }
        receiver
    }

    fn figures(&self) -> Vec<Figure> {
        self.stats().figures()
    }
}

impl Drop for EngineBackend {
    fn drop(&mut self) {
        self.shut_down(self.options.deadline);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LmError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread
        .spawn(run)
        .map_err(|e| LmError::Invalid(format!("the thread {name} cannot be started: {e}")))
}
