//! The trainer: the mutable state of a run.
//!
//! It owns the components and passes them to each other ([`Trainer::step`] in `step.rs`, and
//! [`Trainer::evaluate`]); no component depends on it.

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
use crate::staleness::EarlierWeights;
use crate::store::RolloutStore;
use crate::task_order::{OrderOptions, TaskOrder};
use crate::update::Updater;

/// The mutable state of a run.
pub struct Trainer<'a> {
    pub experiment: &'a Experiment,
    pub environment: &'a Environment,
    pub policy: Policy,
    /// Runs agents with the policy's weights.
    pub sampler: Sampler<'a>,
    /// Present if the algorithm has a KL penalty.
    pub reference: Option<Reference<'a>>,
    /// Present if the algorithm needs values.
    pub critic: Option<Critic<'a>>,
    /// For `train.staleness`.
    pub(crate) earlier: EarlierWeights,
    /// Updates the policy's weights.
    pub updater: Updater<'a>,
    pub store: RolloutStore,
    /// The order of training tasks, and the run's position in it.
    pub tasks: TaskOrder<'a>,
    /// The order of demonstrations, and the run's position in it.
    pub visits: Visits,
    /// Number of steps, each of which may have changed the weights.
    pub version: u64,
    /// Consecutive steps without reward variance.
    pub steps_without_variance: u64,
    pub(crate) seed: SeedTree,
}

impl<'a> Trainer<'a> {
    /// The policy must have the run's initial weights, which are the reference of a KL penalty.
    ///
    /// # Errors
    /// Roles that the agent lacks, no tasks or demonstrations, tasks that the curriculum cannot
    /// order, out of memory for a reference model.
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
                    "train.objective is supervised, but data.train has no demonstrations"
                        .to_owned(),
                ));
            }
            (Objective::Reinforcement, _) => environment.train.len(),
        };
        if len == Some(0) {
            return Err(TrainError::Invalid("data.train has nothing to train on".to_owned()));
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
            earlier: EarlierWeights::new(experiment.train.staleness),
            sampler: Sampler::new(experiment, environment, format, engine),
            policy,
            store,
            tasks: task_order(experiment, environment)?,
            visits: Visits::new(len, seed),
            version: 0,
            steps_without_variance: 0,
            seed,
        })
    }

    /// The seed of step `step`.
    pub(crate) fn step_seed(&self, step: u64) -> SeedTree {
        self.seed.child("step").index(step)
    }
}

/// The order of a run's training tasks from its start. Supervised training has none, so its weights
/// and its curriculum do not matter.
///
/// # Errors
/// As [`TaskOrder::new`].
pub(crate) fn task_order<'a>(
    experiment: &'a Experiment,
    environment: &'a Environment,
) -> Result<TaskOrder<'a>, TrainError> {
    let data = &experiment.data;
    let options = match experiment.train.objective {
        Objective::Supervised => OrderOptions::default(),
        Objective::Reinforcement => OrderOptions {
            names: &data.train,
            weights: &data.weights,
            curriculum: data.curriculum.as_ref(),
        },
    };
    TaskOrder::new(&*environment.train, options, SeedTree::new(experiment.seed))
}

/// Rejects a role that the agent does not have, since nothing would be trained.
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

/// Rejects an algorithm that needs drafts if the agent does not report them.
fn check_drafts(experiment: &Experiment, environment: &Environment) -> Result<(), TrainError> {
    let agent = &environment.agent;
    experiment.check_capabilities(agent.drafts()).map_err(|error| {
        TrainError::Invalid(format!(
            "algorithm.{error}: the agent {} does not report what it would have answered before it",
            agent.name()
        ))
    })
}
