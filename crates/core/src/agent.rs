//! The agent trait and the episode in which an agent runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;

use crate::chat::{ChatModel, ChatReply, ChatRequest, ModelError};
use crate::rollout::{ProcessReward, Signal, SignalKind};
use crate::task::Task;

/// The result of an agent's run: its answer, or `None` if it never gave one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentOutput {
    pub answer: Option<String>,
    /// A reward that the agent assigns itself; the scorer is then not called.
    pub reward: Option<f64>,
}

impl AgentOutput {
    /// An answer to be scored by the scorer.
    pub fn of(answer: Option<String>) -> Self {
        Self { answer, reward: None }
    }
}

/// An agent's failure to finish. Unlike a wrong answer, it leaves the rollout without a reward.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("task {task}: {what}")]
    Task { task: String, what: String },
    /// The machine or process that ran the agent was lost. The rollout may be restarted; the agent
    /// is not at fault.
    #[error("task {task}: {what}")]
    Lost { task: String, what: String },
}

/// Code that works on a task by calling a chat model and tools.
///
/// An agent contains no training code: its prompts and responses are recorded behind
/// [`Episode::chat`].
#[async_trait]
pub trait Agent: Send + Sync {
    /// The name used in configurations and reports.
    fn name(&self) -> &str;

    /// The roles in which the agent calls the model, in order of first use.
    fn roles(&self) -> &[&str];

    /// Whether the agent reports intermediate answers ([`Episode::draft`]), so that an episode can
    /// be scored without a given call.
    fn drafts(&self) -> bool {
        false
    }

    /// Works on `task` until it has an answer or gives up.
    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError>;
}

/// The agent's current answer after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Index of the call.
    pub call: usize,
    pub answer: String,
}

/// Identifies the rollout of an episode, for agents that pass it to an external system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpisodeId {
    pub step: u64,
    /// `train`, or the mode of an evaluation.
    pub phase: String,
    /// Position within its step.
    pub rollout: usize,
    /// Counted from 0; a rollout whose agent failed may be tried again.
    pub attempt: usize,
}

/// Measures how long an agent has been able to proceed. Deadlines are measured on it: time spent
/// waiting for the model, or for a free process to run in, does not count.
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
    /// A running clock.
    fn default() -> Self {
        let now = Some(Instant::now());
        Self { times: Mutex::new(Times { first: now, turn: now }) }
    }
}

impl TurnClock {
    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The agent starts or resumes now.
    pub fn restart(&self) {
        let now = Instant::now();
        let mut times = self.times();
        *times = Times { first: times.first.or(Some(now)), turn: Some(now) };
    }

    /// The agent has not started: it waits for a process or a worker.
    pub fn queue(&self) {
        *self.times() = Times { first: None, turn: None };
    }

    /// Start of the current turn; `None` while queued.
    pub fn turn(&self) -> Option<Instant> {
        self.times().turn
    }

    /// Start of the first turn; `None` while queued.
    pub fn first(&self) -> Option<Instant> {
        self.times().first
    }
}

/// One agent's work on one task: its access to the model, and the signals and drafts it recorded.
pub struct Episode<'a> {
    model: &'a dyn ChatModel,
    place: EpisodeId,
    clock: Arc<TurnClock>,
    calls: AtomicUsize,
    signals: Mutex<Vec<Signal>>,
    rewards: Mutex<Vec<ProcessReward>>,
    drafts: Mutex<Vec<Draft>>,
}

impl<'a> Episode<'a> {
    pub fn new(model: &'a dyn ChatModel) -> Self {
        Self::at(model, EpisodeId::default(), Arc::default())
    }

    /// An episode of the rollout `place`, with deadlines measured on `clock`.
    pub fn at(model: &'a dyn ChatModel, place: EpisodeId, clock: Arc<TurnClock>) -> Self {
        let calls = AtomicUsize::new(0);
        let (signals, rewards, drafts) = Default::default();
        Self { model, place, clock, calls, signals, rewards, drafts }
    }

    /// The clock of this episode's deadlines, for agents that may have to queue.
    pub fn clock(&self) -> &TurnClock {
        &self.clock
    }

    pub fn place(&self) -> &EpisodeId {
        &self.place
    }

    /// Calls the model. A reply whose tool call does not parse records a signal.
    ///
    /// # Errors
    /// Errors of the model: prompt too long, template failure, no answer.
    pub async fn chat(&self, request: ChatRequest) -> Result<ChatReply, AgentError> {
        let reply = self.model.chat(request).await?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(what) = &reply.malformed_call {
            self.signal(SignalKind::MalformedCall, what.clone());
        }
        Ok(reply)
    }

    /// Records an event for credit assignment.
    pub fn signal(&self, kind: SignalKind, detail: impl Into<String>) {
        let signal = Signal { kind, call: self.latest_call(), detail: detail.into() };
        self.signals.lock().unwrap_or_else(|e| e.into_inner()).push(signal);
    }

    /// Rewards the latest call, in addition to the reward of the outcome. Credit rules that take
    /// rewards by step use it: `return_to_go`, `gigpo`, `bilevel_gae` and those with values. A value
    /// that is not finite leaves the rollout without a reward.
    pub fn reward(&self, value: f64) {
        self.reward_call(self.latest_call(), value);
    }

    /// As [`Episode::reward`], for the call with the number `call`, from 0.
    pub fn reward_call(&self, call: usize, value: f64) {
        let reward = ProcessReward { call, value };
        self.rewards.lock().unwrap_or_else(|e| e.into_inner()).push(reward);
    }

    /// Records the answer that would be returned if the episode ended now.
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

    /// Takes the drafts recorded so far, in order.
    pub fn take_drafts(&self) -> Vec<Draft> {
        std::mem::take(&mut self.drafts.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Takes the rewards given so far, in order.
    pub fn take_rewards(&self) -> Vec<ProcessReward> {
        std::mem::take(&mut self.rewards.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Ends the episode and returns its signals.
    pub fn into_signals(self) -> Vec<Signal> {
        self.signals.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}
