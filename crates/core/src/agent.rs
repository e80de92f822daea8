//! Agents, and the episode in which one runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;

use crate::chat::{ChatModel, ChatReply, ChatRequest, ModelError};
use crate::rollout::{Signal, SignalKind};
use crate::task::Task;

/// What an agent leaves behind: its answer, or none if it never gave one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentOutput {
    pub answer: Option<String>,
    /// A reward that the agent gives itself; the scorer is then not asked.
    pub reward: Option<f64>,
}

impl AgentOutput {
    /// An answer for the scorer to judge.
    pub fn of(answer: Option<String>) -> Self {
        Self { answer, reward: None }
    }
}

/// Why an agent could not finish. Not a wrong answer: a rollout that ends so has no reward.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("task {task}: {what}")]
    Task { task: String, what: String },
    /// The machine or process that ran the agent was lost. Whoever runs rollouts may begin it
    /// again; it says nothing of the agent.
    #[error("task {task}: {what}")]
    Lost { task: String, what: String },
}

/// Code that, given a task, calls a chat model and tools, and ends.
///
/// An agent contains no word about training: what it saw and wrote is recorded behind
/// [`Episode::chat`].
#[async_trait]
pub trait Agent: Send + Sync {
    /// The name in configurations and reports.
    fn name(&self) -> &str;

    /// The roles in which it calls the model, in order of first use.
    fn roles(&self) -> &[&str];

    /// Whether it says what it would answer as it goes ([`Episode::draft`]), so that its
    /// episodes can be scored as they stood without a call.
    fn drafts(&self) -> bool {
        false
    }

    /// Works on `task` until it has an answer or gives up.
    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError>;
}

/// The answer that stood after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Index of the call.
    pub call: usize,
    pub answer: String,
}

/// Which rollout an episode is, for agents that have to name it to somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpisodePlace {
    pub step: u64,
    /// `train`, or the mode of an evaluation.
    pub phase: String,
    /// Position within its step.
    pub rollout: usize,
    /// Counted from 0; a rollout whose agent failed may be tried again.
    pub attempt: usize,
}

/// Since when an agent has had everything that it needs to go on. Deadlines are measured on it:
/// an agent is not late while it waits for its model, or for a free process to run in.
#[derive(Debug)]
pub struct TurnClock {
    times: Mutex<Times>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    first: Option<Instant>,
    turn: Option<Instant>,
}

impl Default for TurnClock {
    /// Running.
    fn default() -> Self {
        let now = Some(Instant::now());
        Self { times: Mutex::new(Times { first: now, turn: now }) }
    }
}

impl TurnClock {
    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The agent goes on now.
    pub fn restart(&self) {
        let now = Instant::now();
        let mut times = self.times();
        *times = Times { first: times.first.or(Some(now)), turn: Some(now) };
    }

    /// The agent has not begun: it waits for a process or a worker.
    pub fn queue(&self) {
        *self.times() = Times { first: None, turn: None };
    }

    /// When its turn began; `None` while it is queued.
    pub fn turn(&self) -> Option<Instant> {
        self.times().turn
    }

    /// When it began at all; `None` while it is queued.
    pub fn first(&self) -> Option<Instant> {
        self.times().first
    }
}

/// One agent at work on one task: its way to the model and its record of signals.
pub struct Episode<'a> {
    model: &'a dyn ChatModel,
    place: EpisodePlace,
    clock: Arc<TurnClock>,
    calls: AtomicUsize,
    signals: Mutex<Vec<Signal>>,
    drafts: Mutex<Vec<Draft>>,
}

impl<'a> Episode<'a> {
    pub fn new(model: &'a dyn ChatModel) -> Self {
        Self::at(model, EpisodePlace::default(), Arc::default())
    }

    /// An episode that knows which rollout it is, and whose deadlines are measured on `clock`.
    pub fn at(model: &'a dyn ChatModel, place: EpisodePlace, clock: Arc<TurnClock>) -> Self {
        let calls = AtomicUsize::new(0);
        Self { model, place, clock, calls, signals: Mutex::default(), drafts: Mutex::default() }
    }

    /// The clock of this episode's deadlines, for agents that may have to queue.
    pub fn clock(&self) -> &TurnClock {
        &self.clock
    }

    pub fn place(&self) -> &EpisodePlace {
        &self.place
    }

    /// Calls the model. A reply whose tool call does not parse leaves a signal.
    ///
    /// # Errors
    /// The model's own: prompt too long, template failure, no answer.
    pub async fn chat(&self, request: ChatRequest) -> Result<ChatReply, AgentError> {
        let reply = self.model.chat(request).await?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(what) = &reply.malformed_call {
            self.signal(SignalKind::MalformedCall, what.clone());
        }
        Ok(reply)
    }

    /// Notes that something happened that credit assignment may want to know.
    pub fn signal(&self, kind: SignalKind, detail: impl Into<String>) {
        let signal = Signal { kind, call: self.latest_call(), detail: detail.into() };
        self.signals.lock().unwrap_or_else(|e| e.into_inner()).push(signal);
    }

    /// Notes what the answer would be if the episode ended now.
    pub fn draft(&self, answer: impl Into<String>) {
        let draft = Draft { call: self.latest_call(), answer: answer.into() };
        self.drafts.lock().unwrap_or_else(|e| e.into_inner()).push(draft);
    }

    fn latest_call(&self) -> usize {
        self.calls.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Number of model calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Hands out the drafts noted so far, in order.
    pub fn take_drafts(&self) -> Vec<Draft> {
        std::mem::take(&mut self.drafts.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Ends the episode and hands out its signals.
    pub fn into_signals(self) -> Vec<Signal> {
        self.signals.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}
