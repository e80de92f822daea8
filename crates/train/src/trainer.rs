//! The trainer: everything that changes while a run goes on.
//!
//! It holds the components and hands them to each other ([`Trainer::step`], in `step.rs`, is the
//! order in which they meet; [`Trainer::evaluate`] another); no component knows it.

use std::sync::Arc;

use leyden_core::SeedTree;
use leyden_lm::generate::Engine;
use leyden_lm::optim::Optimizer;
use leyden_lm::policy::Policy;
use leyden_text::ChatFormat;

use crate::config::{Experiment, Objective};
use crate::critic::Critic;
use crate::data::Visits;
use crate::environment::Environment;
use crate::error::TrainError;
use crate::reference::Reference;
use crate::sampler::Sampler;
use crate::store::RolloutStore;
use crate::update::Updater;

/// Everything that changes while a run goes on.
pub struct Trainer<'a> {
    pub experiment: &'a Experiment,
    pub environment: &'a Environment,
    pub policy: Policy,
    /// Runs agents with the policy's weights.
    pub sampler: Sampler<'a>,
    /// Where the algorithm has a KL penalty.
    pub reference: Option<Reference<'a>>,
    /// Where the algorithm measures against values.
    pub critic: Option<Critic<'a>>,
    /// Changes the policy's weights.
    pub updater: Updater<'a>,
    pub store: RolloutStore,
    /// The order of tasks or demonstrations, and how far the run is in it.
    pub visits: Visits,
    /// Number of updates behind the weights, one a step.
    pub version: u64,
    /// Steps in a row without any variance of reward.
    pub steps_without_variance: u64,
    pub(crate) seed: SeedTree,
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
        let reinforced = experiment.train.objective == Objective::Reinforcement;
        let reference = (experiment.algorithm.kl.is_on() && reinforced)
            .then(|| Reference::new(experiment, &policy))
            .transpose()?;
        let critic = experiment.has_critic().then(|| Critic::new(experiment, &policy, seed));
        Ok(Self {
            experiment,
            environment,
            reference,
            critic: critic.transpose()?,
            updater: Updater::new(experiment, &policy, optimizer)?,
            sampler: Sampler::new(experiment, environment, format, engine),
            policy,
            store,
            visits: Visits::new(len, seed),
            version: 0,
            steps_without_variance: 0,
            seed,
        })
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
