//! The trainer: everything that changes while a run goes on, and one step of it.
//!
//! What a step does stands in modules of its own, each a part of [`Trainer`]: rollouts and
//! their credit (`reinforcement`), the policy's update (`update`),
//! demonstrations (`supervised`), held-out tasks (`evaluation`).

use std::sync::Arc;
use std::time::Instant;

use leyden_core::SeedTree;
use leyden_core::record::{StepRecord, Timing};
use leyden_lm::{Decay, Engine, Optimizer, Policy, Schedule, clip_grad_norm};
use leyden_text::ChatFormat;

use crate::config::{Experiment, Objective};
use crate::critic::Critic;
use crate::data::VisitOrder;
use crate::reference::Reference;
use crate::replicas::Replicas;
use crate::rounds::Watch;
use crate::store::RolloutStore;
use crate::{Environment, TrainError};

/// Everything that changes while a run goes on, and what it needs to change.
pub struct Trainer<'a> {
    pub experiment: &'a Experiment,
    pub environment: &'a Environment,
    pub format: Arc<ChatFormat>,
    pub policy: Policy,
    pub optimizer: Optimizer,
    pub engine: Engine,
    pub store: RolloutStore,
    /// Where the algorithm has a KL penalty.
    pub reference: Option<Reference>,
    /// Where the algorithm measures against values.
    pub critic: Option<Critic>,
    pub(crate) replicas: Replicas,
    /// Number of updates steps behind the weights.
    pub version: u64,
    /// Position in the order of tasks or demonstrations.
    pub position: u64,
    /// Steps in a row without any variance of reward.
    pub quiet_steps: u64,
    pub(crate) order: VisitOrder,
    schedule: Schedule,
    pub(crate) seed: SeedTree,
    /// Whether the engine holds the policy's current weights.
    engine_is_current: bool,
}

impl<'a> Trainer<'a> {
    /// The policy must hold the weights with which the run begins: a KL penalty measures the
    /// distance to them.
    ///
    /// # Errors
    /// Roles that the agent lacks, no tasks or demonstrations, no memory for a reference model.
    pub fn new(
        experiment: &'a Experiment,
        environment: &'a Environment,
        format: Arc<ChatFormat>,
        policy: Policy,
        optimizer: Optimizer,
        engine: Engine,
        store: RolloutStore,
    ) -> Result<Self, TrainError> {
        let seed = SeedTree::new(experiment.seed);
        let len = match (&experiment.train.objective, &environment.demonstrations) {
            (Objective::Supervised, Some(source)) => source.len(),
            (Objective::Supervised, None) => {
                return Err(TrainError::Invalid(
                    "train.objective is supervised, but data.train holds no demonstrations"
                        .to_owned(),
                ));
            }
            (Objective::Reinforcement, _) => environment.train.len(),
        };
        if len == Some(0) {
            return Err(TrainError::Invalid("data.train holds nothing to train on".to_owned()));
        }
        check_roles(&experiment.train.roles, environment)?;
        check_drafts(experiment, environment)?;
        let train = &experiment.train;
        let schedule = Schedule {
            warmup: train.warmup as usize,
            decay: match train.schedule.as_str() {
                "linear" => Decay::Linear,
                "cosine" => Decay::Cosine,
                _ => Decay::Constant,
            },
            steps: train.steps as usize,
            ..Schedule::default()
        };
        let kl = &experiment.algorithm.kl;
        let wanted = kl.is_on() && experiment.train.objective == Objective::Reinforcement;
        let reference = wanted.then(|| Reference::of(&policy, kl.controller())).transpose()?;
        let critic =
            experiment.has_critic().then(|| Critic::new(&experiment.critic, &policy, seed));
        let critic = critic.transpose()?;
        let replicas = Replicas::of(&policy, experiment.replicas())?;
        Ok(Self {
            experiment,
            environment,
            format,
            policy,
            reference,
            critic,
            replicas,
            optimizer,
            engine,
            store,
            version: 0,
            position: 0,
            quiet_steps: 0,
            order: VisitOrder::new(len, seed),
            schedule,
            seed,
            engine_is_current: false,
        })
    }

    /// Runs step `step` (from 1) and returns its line and its durations.
    ///
    /// # Errors
    /// The engine's, the estimator's, the store's; a loss that is not finite.
    pub fn step(
        &mut self,
        step: u64,
        watch: &dyn Watch,
    ) -> Result<(StepRecord, Timing), TrainError> {
        let mut timing = Timing { step, phase: "step".to_owned(), ..Timing::default() };
        let record = match self.experiment.train.objective {
            Objective::Reinforcement => self.reinforcement_step(step, &mut timing, watch),
            Objective::Supervised => self.supervised_step(step, &mut timing),
        };
        let record = record.map_err(|error| error.at(step))?;
        if !(record.loss.is_finite() && record.grad_norm.is_finite()) {
            return Err(TrainError::Step {
                step,
                what: format!(
                    "loss {} or gradient norm {} is not finite; lower train.learning_rate, \
                     or use another dtype; the latest checkpoint is sound",
                    record.loss, record.grad_norm
                ),
            });
        }
        self.version = step;
        self.engine_is_current = false;
        Ok((record, timing))
    }

    /// Clips the gradient, updates the weights, and returns the norm before clipping.
    pub(crate) fn apply(&mut self, step: u64) -> Result<f64, TrainError> {
        let clip = self.experiment.train.grad_clip;
        let norm = clip_grad_norm(self.policy.trained(), (clip > 0.0).then_some(clip))?;
        if norm.is_finite() {
            let factor = self.schedule.factor(step as usize - 1);
            self.optimizer.step(self.policy.trained(), factor)?;
        }
        Ok(norm)
    }

    /// The factor of the KL penalty; 0 without one.
    pub(crate) fn kl_coefficient(&self) -> f64 {
        self.reference.as_ref().map_or(0.0, |reference| reference.controller.coefficient)
    }

    pub(crate) fn learning_rate(&self, step: u64) -> f64 {
        self.experiment.train.learning_rate * self.schedule.factor(step as usize - 1)
    }

    /// Gives the engine the policy's weights, if it has others.
    pub(crate) fn refresh_engine(&mut self) -> Result<(), TrainError> {
        if !self.engine_is_current {
            self.engine.set_weights(self.policy.inference_weights()?);
            self.engine_is_current = true;
        }
        Ok(())
    }
}

/// Refuses a role that the agent does not have: nothing would ever be trained.
fn check_roles(roles: &[String], environment: &Environment) -> Result<(), TrainError> {
    let (agent, known) = (environment.agent.name(), environment.agent.roles());
    match roles.iter().find(|role| !known.contains(&role.as_str())) {
        Some(role) if !known.is_empty() => Err(TrainError::Invalid(format!(
            "train.roles: the agent {agent} has no role `{role}`; it has {}",
            known.join(", ")
        ))),
        _ => Ok(()),
    }
}

/// Refuses an algorithm that needs what this agent does not say.
fn check_drafts(experiment: &Experiment, environment: &Environment) -> Result<(), TrainError> {
    let agent = &environment.agent;
    experiment.check_capabilities(agent.drafts()).map_err(|error| {
        TrainError::Invalid(format!(
            "algorithm.{error}: the agent {} does not say what it would have answered before it",
            agent.name()
        ))
    })
}

/// Notes how long a part of a step took.
pub(crate) fn lap(timing: &mut Timing, part: &str, started: Instant) {
    timing.seconds.insert(part.to_owned(), started.elapsed().as_secs_f64());
}
