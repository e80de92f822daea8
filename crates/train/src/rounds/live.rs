//! A running rollout: the agent's future, its mailbox, its conversation so far.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures::channel::oneshot;
use leyden_core::record::{FlightState, InFlight};
use leyden_core::{
    Agent, AgentError, AgentOutput, Call, ChatModel, ChatReply, ChatRequest, Draft, Episode,
    EpisodeId, ModelError, Outcome, ProcessReward, Rollout, Scorer, Signal, SignalKind, TurnClock,
    async_trait,
};
use leyden_text::History;

use crate::rounds::job::{Job, Spent};
use crate::rounds::options::{Deadlines, OnFailure, RoundOptions};
use crate::rounds::wake::{Notifier, Wake};

/// The signal of a rollout whose prompt exceeded the context.
pub const CONTEXT_OVERFLOW: &str = "context_overflow";

/// Maximum restarts of a rollout whose machine or process was lost.
const MAX_LOSSES: usize = 3;

/// A request of an agent to its model.
pub(super) struct Question {
    pub request: ChatRequest,
    pub answer: Answer,
}

pub(super) type Answer = oneshot::Sender<Result<ChatReply, ModelError>>;

/// The model of one rollout: queues requests and waits for their replies.
#[derive(Default)]
struct Mailbox {
    pending: Mutex<VecDeque<Question>>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.pending.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[async_trait]
impl ChatModel for Mailbox {
    async fn chat(&self, request: ChatRequest) -> Result<ChatReply, ModelError> {
        let (answer, receiver) = oneshot::channel();
        self.lock().push_back(Question { request, answer });
        receiver.await.map_err(|_| ModelError::Unavailable("the run ended".to_owned()))?
    }
}

/// How an attempt ended.
struct Ended {
    output: Result<AgentOutput, AgentError>,
    signals: Vec<Signal>,
    rewards: Vec<ProcessReward>,
    drafts: Vec<Draft>,
}

impl Ended {
    fn failed(error: AgentError) -> Self {
        Self { output: Err(error), signals: Vec::new(), rewards: Vec::new(), drafts: Vec::new() }
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

/// A running rollout.
pub(super) struct Live<'a> {
    pub job: Job<'a>,
    agent: &'a dyn Agent,
    mailbox: Arc<Mailbox>,
    wake: Arc<Wake>,
    /// `None` once the rollout has ended.
    future: Option<Running<'a>>,
    ended: Option<Ended>,
    pub history: History,
    pub calls: Vec<Call>,
    /// Number of questions that have a call index.
    pub asked: usize,
    /// Number of questions that the engine has not answered yet.
    pub open: usize,
    /// The first prompt of this attempt that exceeded the context.
    overflow: Option<Signal>,
    attempt: usize,
    /// Number of attempts whose machine or process was lost.
    lost: usize,
    clock: Arc<TurnClock>,
    started: Instant,
    /// When the first of the open questions was asked.
    asked_at: Instant,
    spent: Spent,
}

impl<'a> Live<'a> {
    pub fn start(
        job: Job<'a>,
        agent: &'a dyn Agent,
        options: &RoundOptions,
        notifier: &Arc<Notifier>,
    ) -> Self {
        let mut live = Self {
            job,
            agent,
            mailbox: Arc::default(),
            wake: Arc::new(Wake::new(Arc::clone(notifier))),
            future: None,
            ended: None,
            history: History::default(),
            calls: Vec::new(),
            asked: 0,
            open: 0,
            overflow: None,
            attempt: 0,
            lost: 0,
            clock: Arc::default(),
            started: Instant::now(),
            asked_at: Instant::now(),
            spent: Spent::default(),
        };
        live.begin(options);
        live
    }

    /// Starts an attempt with fresh state.
    fn begin(&mut self, options: &RoundOptions) {
        let place = EpisodeId {
            step: options.step,
            phase: options.phase.clone(),
            rollout: self.job.id,
            attempt: self.attempt,
        };
        self.mailbox = Arc::default();
        let (model, task, agent) = (Arc::clone(&self.mailbox), self.job.task, self.agent);
        let clock = Arc::clone(&self.clock);
        self.future = Some(Box::pin(async move {
            let episode = Episode::at(&*model, place, clock);
            let output = agent.run(task, &episode).await;
            let (drafts, rewards) = (episode.take_drafts(), episode.take_rewards());
            Ended { output, signals: episode.into_signals(), rewards, drafts }
        }));
        (self.history, self.calls, self.asked, self.open) = (History::default(), Vec::new(), 0, 0);
        self.overflow = None;
        self.clock.restart();
    }

    pub fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether its agent has unprocessed questions.
    pub fn has_asked(&self) -> bool {
        !self.mailbox.lock().is_empty()
    }

    /// Polls the agent if it is awake, until it ends or waits for something.
    pub fn advance(&mut self, options: &RoundOptions) {
        if !self.wake.take() {
            return;
        }
        let Some(future) = &mut self.future else { return };
        let waker = Waker::from(Arc::clone(&self.wake));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        drop(waker);
        match polled {
            Poll::Ready(ended) => self.end(ended, options, true),
            Poll::Pending => {
                // Only our own reference is left: no waker exists, so the future can never wake.
                let is_stuck = Arc::strong_count(&self.wake) == 1;
                if is_stuck && self.open == 0 && !self.has_asked() {
                    let what = "the agent waits for something that can never happen".to_owned();
                    self.fail(what, options, true);
                }
            }
        }
    }

    /// Takes the pending questions; none once the agent has ended.
    pub fn take_questions(&mut self) -> Vec<Question> {
        let asked = std::mem::take(&mut *self.mailbox.lock());
        if self.future.is_none() { Vec::new() } else { asked.into() }
    }

    /// Records that a question is submitted to the engine.
    pub fn submitted(&mut self) {
        if self.open == 0 {
            self.spend_turn();
            self.asked_at = Instant::now();
        }
        self.open += 1;
    }

    /// Adds the agent's turn until now to its time.
    fn spend_turn(&mut self) {
        if let Some(turn) = self.clock.turn() {
            self.spent.agent += turn.elapsed().as_secs_f64();
        }
    }

    /// Records that a question was answered or cancelled.
    pub fn answered(&mut self) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.spent.model += self.asked_at.elapsed().as_secs_f64();
        }
        self.clock.restart();
    }

    /// Records the error of a question that does not fit the context, after the policy has written
    /// into it. A first prompt that does not fit is a property of the task.
    pub fn note_overflow(&mut self, error: &ModelError) {
        if matches!(error, ModelError::PromptTooLong { .. }) && !self.calls.is_empty() {
            let kind = SignalKind::Other(CONTEXT_OVERFLOW.to_owned());
            let call = self.calls.len() - 1;
            self.overflow.get_or_insert(Signal { kind, call, detail: error.to_string() });
        }
    }

    fn fail(&mut self, what: String, options: &RoundOptions, retry: bool) {
        let error = AgentError::Task { task: self.job.task.id.clone(), what };
        self.end(Ended::failed(error), options, retry);
    }

    /// Ends this attempt; if `retry` is set, the rollout restarts if it failed and has retries
    /// left.
    fn end(&mut self, ended: Ended, options: &RoundOptions, retry: bool) {
        // Dropped first: an aborted future may hold a process or a connection.
        self.future = None;
        if self.open == 0 {
            self.spend_turn();
        }
        if let Some(first) = self.clock.first() {
            self.spent.queue = first.duration_since(self.started).as_secs_f64();
        }
        let retry = retry
            && match &ended.output {
                Ok(_) => false,
                Err(AgentError::Lost { .. }) => self.lost < MAX_LOSSES,
                // The same prompts would overflow again.
                Err(_) if self.overflow.is_some() => false,
                Err(_) => {
                    options.on_failure == OnFailure::Retry
                        && self.attempt - self.lost < options.retries
                }
            };
        if retry && !self.too_old(&options.deadlines) {
            self.lost += usize::from(matches!(ended.output, Err(AgentError::Lost { .. })));
            self.attempt += 1;
            self.begin(options);
            std::task::Wake::wake_by_ref(&self.wake);
        } else {
            self.ended = Some(ended);
        }
    }

    fn too_old(&self, deadlines: &Deadlines) -> bool {
        let age = self.clock.first().map(|first| first.elapsed());
        age.zip(deadlines.rollout).is_some_and(|(age, limit)| age >= limit)
    }

    /// The rollout's next deadline and its error message. An agent that waits for its model has no
    /// turn deadline.
    pub fn due(&self, deadlines: &Deadlines) -> Option<(Instant, String)> {
        if self.has_ended() {
            return None;
        }
        let waits = self.open > 0 || self.has_asked();
        let started = self.clock.turn().filter(|_| !waits);
        let turn = started.zip(deadlines.turn).map(|(turn, limit)| {
            let after = match self.calls.len() {
                0 => "before its first question".to_owned(),
                calls => format!("after the answer to its call {}", calls - 1),
            };
            (turn + limit, format!("its agent took longer than {limit:?} {after}"))
        });
        let rollout = self.clock.first().zip(deadlines.rollout).map(|(first, limit)| {
            (first + limit, format!("it took longer than {limit:?} in total"))
        });
        turn.into_iter().chain(rollout).min_by_key(|(due, _)| *due)
    }

    /// Aborts an attempt past its deadline; `retry` allows another one.
    pub fn give_up(&mut self, why: &str, options: &RoundOptions, retry: bool) {
        let what = format!("rollout {} (attempt {}) was aborted: {why}", self.job.id, self.attempt);
        self.fail(what, options, retry);
    }

    pub fn attempt(&self) -> usize {
        self.attempt
    }

    /// Its current progress.
    pub fn flight(&self) -> InFlight {
        let state = match () {
            () if self.has_ended() => FlightState::Ended,
            () if self.open > 0 => FlightState::Generating,
            () if self.has_asked() => FlightState::Queued,
            () => FlightState::Agent,
        };
        let task_id = self.job.task.id.clone();
        InFlight { id: self.job.id, task_id, state, calls: self.calls.len() }
    }

    /// Scores the rollout; returns it with its intermediate answers and its time.
    pub fn finish(
        self,
        scorer: &dyn Scorer,
        options: &RoundOptions,
    ) -> (Rollout, (Vec<Draft>, Spent)) {
        let task = self.job.task;
        let unfinished = || {
            let what = "the run ended before the rollout".to_owned();
            Ended::failed(AgentError::Task { task: task.id.clone(), what })
        };
        let Ended { output, mut signals, rewards, drafts } = self.ended.unwrap_or_else(unfinished);
        let scored = |answer: Option<&str>| match scorer.score(task, answer) {
            Ok(score) if score.reward.is_finite() => Outcome::Reward(score.reward),
            Ok(score) => Outcome::Missing(format!("the scorer returned {}", score.reward)),
            Err(e) => Outcome::Missing(e.to_string()),
        };
        let overflowed = self.overflow.is_some();
        signals.extend(self.overflow);
        let (answer, outcome) = match output {
            Ok(AgentOutput { answer, reward: Some(reward) }) => (answer, own_reward(reward)),
            Ok(AgentOutput { answer, reward: None }) => {
                let outcome = scored(answer.as_deref());
                (answer, outcome)
            }
            // The policy filled its context, which is no failure of the infrastructure: it gave no
            // answer. A lost machine is one, whatever happened before.
            Err(error) if overflowed && !matches!(error, AgentError::Lost { .. }) => {
                (None, scored(None))
            }
            Err(error) if options.on_failure == OnFailure::Zero => {
                let call = self.calls.len().saturating_sub(1);
                let kind = SignalKind::Other("agent_failed".to_owned());
                signals.push(Signal { kind, call, detail: error.to_string() });
                (None, Outcome::Reward(0.0))
            }
            Err(error) => (None, Outcome::Missing(error.to_string())),
        };
        let not_finite = rewards.iter().find(|reward| !reward.value.is_finite());
        let outcome = match not_finite {
            Some(ProcessReward { call, value }) => {
                Outcome::Missing(format!("the agent's reward of call {call} is {value}"))
            }
            None => outcome,
        };
        let rollout = Rollout {
            id: self.job.id,
            task_id: task.id.clone(),
            group: self.job.group,
            calls: self.calls,
            signals,
            process_rewards: rewards,
            answer,
            outcome,
        };
        (rollout, (drafts, self.spent))
    }
}

fn own_reward(reward: f64) -> Outcome {
    match reward.is_finite() {
        true => Outcome::Reward(reward),
        false => Outcome::Missing(format!("the agent's own reward is {reward}")),
    }
}
