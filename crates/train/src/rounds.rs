//! Lockstep rounds: many agents, one engine, reproducible.
//!
//! Every rollout is a future. All of them are polled until each has either ended or asked
//! its model something; the questions, ordered by rollout and not by arrival, form a round
//! and are generated as one batch; the answers go back and the next round begins. Tools run
//! inside the futures and so in parallel, but nothing depends on which finishes first. What
//! the engine saw and wrote is recorded here, behind the agents' backs.
//!
//! A rollout may also go on from a call of another one: the calls before it are then answered
//! as they were, without the engine. An agent that does the same when it is told the same
//! arrives in the same state, and one that does not is found out by its prompts.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::channel::oneshot;
use leyden_core::{
    Agent, AgentError, AgentOutput, Call, ChatModel, ChatReply, ChatRequest, Draft, Episode,
    ModelError, Outcome, Rollout, Sampling, Scorer, SeedTree, Signal, Task, async_trait,
};
use leyden_lm::{Engine, LmError, Request, StopCheck};
use leyden_text::{ChatFormat, Growth, History, Prompt};
use rayon::prelude::*;

/// How rollouts are generated.
#[derive(Clone)]
pub struct RoundOptions {
    pub sampling: Sampling,
    /// Prompts longer than this are refused to the agent.
    pub max_prompt_tokens: usize,
    /// Number of updates behind the policy.
    pub policy_version: u64,
}

/// One rollout to be run.
pub struct Job<'a> {
    pub id: usize,
    pub group: usize,
    pub task: &'a Task,
    pub seed: SeedTree,
    /// Its first calls, which are answered as they were.
    pub played: &'a [Call],
}

/// What came of the jobs, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    pub rollouts: Vec<Rollout>,
    pub prompts: PromptCounts,
    /// The answers that stood in the course of each rollout, of agents that say so.
    pub drafts: Vec<Vec<Draft>>,
}

/// How the prompts of a step came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptCounts {
    /// First prompts of a conversation.
    pub fresh: usize,
    /// Prompts that extend an earlier call token for token.
    pub extended: usize,
    /// Prompts whose template rewrote what had been said.
    pub rewritten: usize,
}

impl PromptCounts {
    /// Adds those of other rollouts.
    pub fn add(&mut self, other: Self) {
        self.fresh += other.fresh;
        self.extended += other.extended;
        self.rewritten += other.rewritten;
    }
}

/// The model as one rollout sees it: a place to leave a request and wait.
struct Mailbox {
    pending: Mutex<Option<(ChatRequest, Answer)>>,
}

type Answer = oneshot::Sender<Result<ChatReply, ModelError>>;

#[async_trait]
impl ChatModel for Mailbox {
    async fn chat(&self, request: ChatRequest) -> Result<ChatReply, ModelError> {
        let (sender, receiver) = oneshot::channel();
        let before = self.lock().replace((request, sender));
        if before.is_some() {
            return Err(ModelError::Unavailable("an agent asked two questions at once".to_owned()));
        }
        receiver.await.map_err(|_| ModelError::Unavailable("the run ended".to_owned()))?
    }
}

impl Mailbox {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(ChatRequest, Answer)>> {
        self.pending.lock().unwrap_or_else(|e| e.into_inner())
    }
}

type Ended = (Result<AgentOutput, AgentError>, Vec<Signal>, Vec<Draft>);
type Running<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

/// A rollout on its way.
struct Live<'a> {
    job: Job<'a>,
    mailbox: Arc<Mailbox>,
    /// `None` once it has ended.
    future: Option<Running<'a>>,
    ended: Option<Ended>,
    history: History,
    calls: Vec<Call>,
}

/// Runs all jobs to their end and scores them.
///
/// A rollout whose agent or model failed, or whose task cannot be scored, has no reward; the
/// others are not affected.
///
/// # Errors
/// Only where the engine itself fails (memory, device).
pub fn run_rollouts(
    jobs: Vec<Job<'_>>,
    agent: &dyn Agent,
    scorer: &dyn Scorer,
    format: &Arc<ChatFormat>,
    engine: &mut Engine,
    options: &RoundOptions,
    progress: &dyn Fn(usize),
) -> Result<Played, LmError> {
    let mut live: Vec<Live<'_>> = jobs.into_iter().map(|job| start(job, agent)).collect();
    let mut counts = PromptCounts::default();
    loop {
        live.par_iter_mut().for_each(advance);
        progress(live.iter().filter(|rollout| rollout.ended.is_some()).count());
        let asked = questions(&mut live);
        if asked.is_empty() {
            break;
        }
        answer_round(asked, &mut live, format, engine, options, &mut counts)?;
    }
    engine.forget_all();
    let (rollouts, drafts) = live.into_par_iter().map(|rollout| finish(rollout, scorer)).unzip();
    Ok(Played { rollouts, prompts: counts, drafts })
}

fn start<'a>(job: Job<'a>, agent: &'a dyn Agent) -> Live<'a> {
    let mailbox = Arc::new(Mailbox { pending: Mutex::new(None) });
    let model = Arc::clone(&mailbox);
    let task = job.task;
    let future = async move {
        let episode = Episode::new(&*model);
        let output = agent.run(task, &episode).await;
        let drafts = episode.take_drafts();
        (output, episode.into_signals(), drafts)
    };
    let future: Option<Running<'a>> = Some(Box::pin(future));
    Live { job, mailbox, future, ended: None, history: History::default(), calls: Vec::new() }
}

/// Polls a rollout until it ends or waits for its model.
fn advance(rollout: &mut Live<'_>) {
    let Some(future) = &mut rollout.future else { return };
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(ended) => {
            rollout.ended = Some(ended);
            rollout.future = None;
        }
        Poll::Pending => {
            if rollout.mailbox.lock().is_none() {
                // Nothing would ever wake it: there is no event loop but the rounds.
                let what = "the agent waits for something that is not its model".to_owned();
                let error = AgentError::Task { task: rollout.job.task.id.clone(), what };
                rollout.ended = Some((Err(error), Vec::new(), Vec::new()));
                rollout.future = None;
            }
        }
    }
}

/// A question of a round.
struct Question {
    index: usize,
    request: ChatRequest,
    answer: Answer,
}

fn questions(live: &mut [Live<'_>]) -> Vec<Question> {
    live.iter_mut()
        .enumerate()
        .filter_map(|(index, rollout)| {
            let (request, answer) = rollout.mailbox.lock().take()?;
            // An agent that ended without waiting for its answer no longer wants it.
            rollout.future.is_some().then_some(Question { index, request, answer })
        })
        .collect()
}

fn answer_round(
    asked: Vec<Question>,
    live: &mut [Live<'_>],
    format: &Arc<ChatFormat>,
    engine: &mut Engine,
    options: &RoundOptions,
    counts: &mut PromptCounts,
) -> Result<(), LmError> {
    let histories: Vec<&History> = asked.iter().map(|q| &live[q.index].history).collect();
    let prompts: Vec<_> = asked
        .par_iter()
        .zip(histories)
        .map(|(question, history)| format.prompt(history, &question.request))
        .collect();
    let stop_ids: Arc<[u32]> = format.stop_ids().iter().copied().collect();
    let mut requests = Vec::new();
    let mut waiting = Vec::new();
    for (question, prompt) in asked.into_iter().zip(prompts) {
        let rollout = &mut live[question.index];
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(e) => {
                let _ = question.answer.send(Err(ModelError::Template(e.to_string())));
                continue;
            }
        };
        if let Some(before) = rollout.job.played.get(rollout.calls.len()) {
            let answer = rollout.replay(&question.request, prompt, before, format);
            let _ = question.answer.send(answer);
            continue;
        }
        let (tokens, limit) = (prompt.ids.len(), options.max_prompt_tokens);
        if tokens > limit {
            let _ = question.answer.send(Err(ModelError::PromptTooLong { tokens, limit }));
            continue;
        }
        match prompt.growth {
            Growth::Fresh => counts.fresh += 1,
            Growth::Extended { .. } => counts.extended += 1,
            Growth::Rewritten => counts.rewritten += 1,
        }
        let mut sampling = options.sampling.clone();
        if let Some(limit) = question.request.max_tokens {
            sampling.max_tokens = sampling.max_tokens.min(limit);
        }
        requests.push(Request {
            key: rollout.job.id as u64,
            prompt: prompt.ids.clone(),
            sampling,
            seed: rollout.job.seed.child("call").index(rollout.calls.len() as u64),
            stop_ids: Arc::clone(&stop_ids),
            stop: stop_texts(&question.request.stop, format),
        });
        waiting.push((question, prompt));
    }
    let completions = engine.generate(&requests)?;
    for ((question, prompt), completion) in waiting.into_iter().zip(completions) {
        let rollout = &mut live[question.index];
        let answer = match completion {
            Ok(completion) => {
                let call = Call {
                    agent_role: question.request.agent_role.clone(),
                    prompt_ids: prompt.ids.clone(),
                    response_ids: completion.ids,
                    logprobs: completion.logprobs,
                    text: String::new(),
                    finish: completion.finish,
                    policy_version: options.policy_version,
                    constrained: question.request.is_constrained(),
                };
                Ok(rollout.record(&question.request, prompt, call, format))
            }
            Err(LmError::PromptTooLong { tokens, limit }) => {
                Err(ModelError::PromptTooLong { tokens, limit })
            }
            Err(e) => Err(ModelError::Unavailable(e.to_string())),
        };
        let _ = question.answer.send(answer);
    }
    Ok(())
}

impl Live<'_> {
    /// Notes a call and returns what the agent is told.
    fn record(
        &mut self,
        request: &ChatRequest,
        prompt: Prompt,
        call: Call,
        format: &ChatFormat,
    ) -> ChatReply {
        let reply = format.reply(request, &call.response_ids, call.finish);
        let text = reply.message.content.clone();
        self.history.push(prompt, call.response_ids.clone(), reply.message.clone());
        self.calls.push(Call { text, ..call });
        reply
    }

    /// Answers a question as it was answered in the rollout that this one goes on from.
    ///
    /// # Errors
    /// A question that is not the one that was asked there.
    fn replay(
        &mut self,
        request: &ChatRequest,
        prompt: Prompt,
        before: &Call,
        format: &ChatFormat,
    ) -> Result<ChatReply, ModelError> {
        if prompt.ids != before.prompt_ids {
            return Err(ModelError::Unavailable(format!(
                "told the same, the agent asked something else in call {}: its rollouts cannot be \
                 continued from a call",
                self.calls.len()
            )));
        }
        Ok(self.record(request, prompt, before.clone(), format))
    }
}

/// Watches for the stop texts of a request; `None` where there are none.
fn stop_texts(stops: &[String], format: &Arc<ChatFormat>) -> Option<Box<dyn StopCheck>> {
    if stops.is_empty() {
        return None;
    }
    let (stops, format) = (stops.to_vec(), Arc::clone(format));
    // Decoding the whole response after every token is quadratic, but responses are short and
    // byte-level tokens may end in the middle of a character.
    Some(Box::new(move |ids: &[u32]| {
        let text = format.tokenizer().decode(ids, true);
        stops.iter().any(|stop| text.contains(stop.as_str()))
    }))
}

fn finish(rollout: Live<'_>, scorer: &dyn Scorer) -> (Rollout, Vec<Draft>) {
    let task = rollout.job.task;
    let (output, signals, drafts) =
        rollout.ended.expect("rounds go on until every rollout has ended");
    let (answer, outcome) = match output {
        Ok(output) => {
            let outcome = match scorer.score(task, output.answer.as_deref()) {
                Ok(score) if score.reward.is_finite() => Outcome::Reward(score.reward),
                Ok(score) => Outcome::Missing(format!("the scorer gave {}", score.reward)),
                Err(e) => Outcome::Missing(e.to_string()),
            };
            (output.answer, outcome)
        }
        Err(e) => (None, Outcome::Missing(e.to_string())),
    };
    let rollout = Rollout {
        id: rollout.job.id,
        task_id: task.id.clone(),
        group: rollout.job.group,
        calls: rollout.calls,
        signals,
        answer,
        outcome,
    };
    (rollout, drafts)
}

/// Signals by kind, over all rollouts.
pub fn signal_counts(rollouts: &[Rollout]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for signal in rollouts.iter().flat_map(|rollout| &rollout.signals) {
        let name = crate::store::signal_name(&signal.kind);
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}
