//! Agents, and the episode in which one runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use crate::chat::{ChatModel, ChatReply, ChatRequest, ModelError};
use crate::rollout::{Signal, SignalKind};
use crate::task::Task;

/// What an agent leaves behind: its answer, or none if it never gave one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentOutput {
    pub answer: Option<String>,
}

/// Why an agent could not finish. Not a wrong answer: a rollout that ends so has no reward.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("task {task}: {what}")]
    Task { task: String, what: String },
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

    /// Works on `task` until it has an answer or gives up.
    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError>;
}

/// One agent at work on one task: its way to the model and its record of signals.
pub struct Episode<'a> {
    model: &'a dyn ChatModel,
    calls: AtomicUsize,
    signals: Mutex<Vec<Signal>>,
}

impl<'a> Episode<'a> {
    pub fn new(model: &'a dyn ChatModel) -> Self {
        Self { model, calls: AtomicUsize::new(0), signals: Mutex::new(Vec::new()) }
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
        let after_call = self.calls.load(Ordering::Relaxed).saturating_sub(1);
        let signal = Signal { kind, call: after_call, detail: detail.into() };
        self.signals.lock().unwrap_or_else(|e| e.into_inner()).push(signal);
    }

    /// Number of model calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Ends the episode and hands out what was noted.
    pub fn into_signals(self) -> Vec<Signal> {
        self.signals.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}
