//! The handle that a server holds.

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

/// Threads that render and tokenise; more would only take cores from the engine.
const PREPARING: usize = 2;

/// A model in this process as a server's [`Backend`].
///
/// Dropping it ends its threads; requests that are open then still get their answers first.
pub struct EngineBackend {
    /// `None` once the backend is shut down.
    open: Mutex<Option<Doors>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    counters: Arc<Counters>,
    conversations: Arc<Conversations>,
    options: Options,
    number: AtomicU64,
}

/// Where requests and orders go in. The threads end when both are closed.
#[derive(Clone)]
struct Doors {
    arrivals: Sender<Arrival>,
    orders: Sender<Message>,
}

impl EngineBackend {
    /// Starts the threads that serve `model` with `format`.
    ///
    /// # Errors
    /// An engine that cannot be made; threads that cannot be started.
    pub fn start(
        model: Model,
        format: Arc<ChatFormat>,
        mut options: Options,
    ) -> Result<Self, LmError> {
        // No request can be longer than what the cache holds.
        options.card.context = model.limits.context.min(model.limits.cache_tokens);
        let counters = Arc::new(Counters::default());
        let conversations = Arc::new(Conversations::new(options.history_tokens));
        let (arrivals, arriving) = channel();
        let (orders, ordered) = channel();
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
            let orders = orders.clone();
            let run = move || prepare::run(&preparation, &arriving, &orders);
            threads.push(named("leyden-prepare", run)?);
        }
        Ok(Self {
            open: Mutex::new(Some(Doors { arrivals, orders })),
            threads: Mutex::new(threads),
            counters,
            conversations,
            options,
            number: AtomicU64::new(0),
        })
    }

    /// Counts for metrics.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Forgets a conversation: its history, and what the cache holds of it.
    pub fn forget(&self, conversation: &str) {
        if let Some(key) = self.conversations.forget(conversation) {
            self.order(Message::Forget(vec![key]));
        }
    }

    /// Holds new requests back and returns once the running ones have ended, so that whoever
    /// owns the weights may change them. They wait until [`EngineBackend::set_weights`] or
    /// [`EngineBackend::resume`].
    pub fn pause(&self) {
        self.wait_for(Message::Pause);
    }

    /// Takes up the requests that were held back.
    pub fn resume(&self) {
        self.order(Message::Resume);
    }

    /// Exchanges the weights, of the same shape and type, between two requests: the running
    /// ones end with the weights that they began with, the others wait. Every answer names
    /// the `version` that wrote it.
    pub fn set_weights(&self, weights: Weights, version: u64) {
        self.wait_for(|done| Message::Weights { weights, version, done });
    }

    /// Takes no more requests, waits for the open ones for at most `grace`, fails the rest,
    /// and ends the threads. Does nothing the second time.
    pub fn shut_down(&self, grace: Duration) {
        let Some(doors) = self.lock_open().take() else { return };
        let _ = doors.orders.send(Message::EndBy(Instant::now() + grace));
        drop(doors);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A thread that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }

    fn order(&self, message: Message) {
        if let Some(doors) = &*self.lock_open() {
            let _ = doors.orders.send(message);
        }
    }

    /// Sends an order and waits until it is done, or the backend is shut down.
    fn wait_for(&self, message: impl FnOnce(std::sync::mpsc::SyncSender<()>) -> Message) {
        let (done, receiver): (_, Receiver<()>) = sync_channel(1);
        self.order(message(done));
        let _ = receiver.recv();
    }

    fn lock_open(&self) -> std::sync::MutexGuard<'_, Option<Doors>> {
        lock(&self.open)
    }

    fn accept(&self, ask: Ask, events: &Events) -> Result<(), Failure> {
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
        let doors = open.as_ref().ok_or(Failure::ShuttingDown)?;
        doors.arrivals.send(arrival).map_err(|_| Failure::ShuttingDown)
    }
}

type Events = tokio::sync::mpsc::UnboundedSender<Event>;

impl Backend for EngineBackend {
    fn models(&self) -> Vec<ModelCard> {
        vec![self.options.card.clone()]
    }

    fn submit(&self, ask: Ask) -> UnboundedReceiver<Event> {
        let (events, receiver) = unbounded_channel();
        if let Err(failure) = self.accept(ask, &events) {
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
