//! Adapter that runs an external agent as an [`Agent`].

use std::sync::Arc;

use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::{FuturesUnordered, StreamExt};
use leyden_core::{Agent, AgentError, AgentOutput, Episode, SignalKind, Task, async_trait};
use leyden_serve::gateway::{Ended, Registered, RolloutEvent, RolloutSpec};
use serde_json::{Map, Value, json};

use super::episode::{Asked, EpisodeBackend, answer};
use super::host::Host;
use super::options::{RewardFrom, Workers};
use super::process::{Exit, Running, last_line};
use super::task;

/// An agent that runs outside of this process.
pub struct ExternalAgent {
    host: Arc<Host>,
    roles: Vec<&'static str>,
}

impl ExternalAgent {
    /// An agent with the given `roles` that is reached through `host`.
    pub fn new(host: Arc<Host>, roles: Vec<&'static str>) -> Self {
        Self { host, roles }
    }

    async fn register(
        &self,
        task: &Task,
        episode: &Episode<'_>,
    ) -> Result<(Registered, UnboundedReceiver<Asked>, Value), AgentError> {
        let failed = |what: String| AgentError::Task { task: task.id.clone(), what };
        let options = self.host.options();
        let extras = self.host.extras(task).map_err(failed)?;
        let place = episode.place();
        let mut metadata = Map::new();
        metadata.insert("step".to_owned(), place.step.into());
        metadata.insert("phase".to_owned(), place.phase.clone().into());
        metadata.insert("rollout".to_owned(), place.rollout.into());
        metadata.insert("attempt".to_owned(), place.attempt.into());
        metadata.insert("task_id".to_owned(), task.id.clone().into());
        let input = task::input(task, extras);
        let spec = RolloutSpec {
            input: input.clone(),
            is_train: place.phase == "train",
            metadata,
            remote: options.workers != Workers::Local,
            ..RolloutSpec::default()
        };
        let (backend, asks) = EpisodeBackend::new(&options.model);
        let registered = self.host.rollouts().register(spec, Arc::new(backend)).await;
        Ok((registered.map_err(|error| failed(error.to_string()))?, asks, input))
    }
}

/// The events reported by the agent so far.
#[derive(Default)]
struct Reported {
    answer: Option<String>,
    reward: Option<f64>,
    ended: Option<Ended>,
    /// Why a report cannot be used.
    unusable: Option<String>,
}

impl Reported {
    /// Applies an event.
    ///
    /// # Errors
    /// The worker was lost; its reports are void.
    fn apply(&mut self, event: RolloutEvent, episode: &Episode<'_>) -> Result<(), String> {
        match event {
            RolloutEvent::Claimed { .. } => episode.clock().restart(),
            RolloutEvent::Requeued { worker } => {
                return Err(format!("the worker {worker} sent no heartbeat and lost its rollout"));
            }
            RolloutEvent::Answer(answer) => self.answer = Some(answer),
            RolloutEvent::Reward(reward) => self.reward = Some(reward),
            RolloutEvent::ProcessReward { call, value } => {
                let calls = episode.calls();
                match call.or(calls.checked_sub(1)).filter(|call| *call < calls) {
                    Some(call) => episode.reward_call(call, value),
                    None => {
                        let call = call.map_or(String::new(), |call| format!(" for call {call}"));
                        self.unusable = Some(format!(
                            "the agent sent a process reward{call} after {calls} calls; calls are \
                             numbered from 0"
                        ));
                    }
                }
            }
            RolloutEvent::Signal { kind, detail } => episode.signal(signal_kind(&kind), detail),
            RolloutEvent::Other { .. } => {}
            RolloutEvent::Ended(ended) => self.ended = Some(ended),
        }
        Ok(())
    }
}

/// A built-in kind by its serialised name, or a custom one.
fn signal_kind(name: &str) -> SignalKind {
    serde_json::from_value(json!(name)).unwrap_or_else(|_| SignalKind::Other(name.to_owned()))
}

#[async_trait]
impl Agent for ExternalAgent {
    fn name(&self) -> &str {
        "external"
    }

    fn roles(&self) -> &[&str] {
        &self.roles
    }

    async fn run(&self, task: &Task, episode: &Episode<'_>) -> Result<AgentOutput, AgentError> {
        episode.clock().queue();
        let failed = |what: String| AgentError::Task { task: task.id.clone(), what };
        let options = self.host.options();
        // Acquire a process slot before registering the rollout, so that no client waits for it.
        let _slot = match options.workers {
            Workers::Local => Some(self.host.process_slot().await.map_err(failed)?),
            Workers::Pool | Workers::Remote => None,
        };
        let (mut rollout, mut asks, input) = self.register(task, episode).await?;
        let mut process = match options.workers {
            Workers::Local => {
                episode.clock().restart();
                self.host.run(variables(&rollout, &input), input.to_string())
            }
            Workers::Pool | Workers::Remote => None,
        };
        let mut reported = Reported::default();
        let mut answers = FuturesUnordered::new();
        let broken = self.host.broken();
        futures::pin_mut!(broken);
        let exit = loop {
            tokio::select! {
                biased;
                Some(asked) = asks.next() => answers.push(answer(asked, episode, options)),
                Some(()) = answers.next(), if !answers.is_empty() => {}
                happening = rollout.next() => match happening {
                    Some(happening) => {
                        let lost = reported.apply(happening, episode);
                        lost.map_err(|what| AgentError::Lost { task: task.id.clone(), what })?;
                        if reported.ended.is_some() && process.is_none() {
                            break None;
                        }
                    }
                    None => return Err(failed("the server of this run shut down".to_owned())),
                },
                exit = ended(&mut process) => break Some(exit.map_err(failed)?),
                why = &mut broken => return Err(failed(why)),
            }
        };
        drop(answers);
        // Events reported just before the end.
        while let Some(happening) = rollout.try_next() {
            let lost = reported.apply(happening, episode);
            lost.map_err(|what| AgentError::Lost { task: task.id.clone(), what })?;
        }
        let program = options.command.first().map_or("the agent", String::as_str);
        let output = output(reported, exit, program, options.reward);
        let end = match &output {
            Ok(_) => Ended::Succeeded,
            Err(what) => Ended::Failed(what.clone()),
        };
        rollout.finish(end).await.map_err(|error| failed(error.to_string()))?;
        output.map_err(failed)
    }
}

/// Waits for the process to exit; never resolves if there is none.
async fn ended(process: &mut Option<Running>) -> Result<Exit, String> {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// The agent's output: the reported answer, or else the last line that it printed.
fn output(
    reported: Reported,
    exit: Option<Exit>,
    program: &str,
    reward: RewardFrom,
) -> Result<AgentOutput, String> {
    if let Some(exit) = exit.as_ref().filter(|exit| !exit.success) {
        return Err(exit.sentence(program));
    }
    if let Some(Ended::Failed(what)) = reported.ended {
        return Err(what);
    }
    if let Some(what) = reported.unusable {
        return Err(what);
    }
    let printed = exit.as_ref().and_then(|exit| last_line(&exit.output)).map(str::to_owned);
    let answer = reported.answer.or(printed);
    match (reward, reported.reward) {
        (RewardFrom::Scorer, _) => Ok(AgentOutput::of(answer)),
        (RewardFrom::Agent, Some(reward)) => Ok(AgentOutput { answer, reward: Some(reward) }),
        (RewardFrom::Agent, None) => Err("agent.external.reward is agent, but the agent sent no \
                                          event `reward`"
            .to_owned()),
    }
}

/// The environment variables that connect a process to its rollout: those of agent-lightning's
/// agents, and those that the official clients read.
fn variables(rollout: &Registered, input: &Value) -> Vec<(String, String)> {
    let addresses = rollout.addresses();
    let mut variables: Vec<(String, String)> = [
        ("AGL_OPENAI_BASE_URL", &addresses.openai),
        ("AGL_EVENT_URL", &addresses.events),
        ("AGL_KEY", &addresses.key),
        ("OPENAI_BASE_URL", &addresses.openai),
        ("OPENAI_API_KEY", &addresses.key),
        ("ANTHROPIC_BASE_URL", &addresses.anthropic),
        ("ANTHROPIC_API_KEY", &addresses.key),
    ]
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .to_vec();
    let text = input.to_string();
    // Linux rejects environment strings of more than 128 KiB; the file always has the task.
    if text.len() < 100_000 {
        variables.push(("LEYDEN_TASK".to_owned(), text));
    }
    variables.push(("LEYDEN_TASK_FILE".to_owned(), "task.json".to_owned()));
    for (name, value) in input.as_object().into_iter().flatten() {
        let (name, value) = (name.to_uppercase(), value.as_str());
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if let Some(value) = value.filter(|value| plain && !value.contains('\0')) {
            variables.push((format!("LEYDEN_TASK_{name}"), value.to_owned()));
        }
    }
    variables
}
