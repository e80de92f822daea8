//! Measures credit rules: the credit of each rule beside the true advantage of the same calls.
//!
//! One sample of rollouts, `group` of each of some training tasks, serves all rules. A call's true
//! advantage is `A_k = r_k + V(s_{k+1}) − V(s_k)` with V the expected training reward from there,
//! estimated by the mean of fresh completions ([`states`]); after the last call V = 0, and r has the
//! rollout's reward. No rule sees these completions, so the noise of the truth is independent of
//! the credit. Tools are deterministic, which replaying a beginning requires: the state after a call
//! is that in which the next one was made.
//!
//! Credit is assigned as in a step of training: batch, critic values, inputs of the rule,
//! [`AlgorithmConfig::assign`](leyden_rl::config::AlgorithmConfig::assign). What is compared with
//! the advantage is the call's own number before anything is divided by a standard deviation:
//!
//! - rules whose credit is a return: the return less the mean of its comparison group, that is, the
//!   estimator `grpo` with `divide_by_std = false`, over the calls of the task or, with `group_by`,
//!   those of the same role or turn;
//! - rules whose credit is an advantage: as it is (estimator `none`; for credit by token the mean
//!   over the call's tokens), so `gigpo` divides by its deviations unless it is told not to;
//! - the estimator `gae` as it is.
//!
//! Calls that a rule leaves out have no weight in the loss: their credit is 0. Overlong shaping and
//! a KL penalty in the reward are left out of all rules.

mod critics;
mod rules;
mod states;
mod steps;

use std::path::Path;

use leyden_core::{SeedTree, Task};
use leyden_lm::formats::LoadedModel;
use leyden_rl::credit::CreditConfig;
use leyden_rl::kl::KlConfig;
use leyden_stats::credit::StateValue;
use serde::Serialize;

use crate::checkpoint::{self, Origin};
use crate::config::{Experiment, Objective};
use crate::credit_inputs;
use crate::environment::Environment;
use crate::error::TrainError;
use crate::run::build;
use crate::sample::Sampled;
use crate::store::{Place, RolloutStore};
use crate::trainer::Trainer;

use critics::Fitting;
use steps::{batch, sample_shown};

pub use rules::Rule;
pub use states::Counts;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub tasks: usize,
    /// Rollouts per task, at least 2.
    pub group: usize,
    /// Fresh completions per state, at least 2.
    pub completions: usize,
    /// Maximum number of calls whose truth is measured, drawn at random; 0 is all.
    pub states: usize,
    /// Steps of fitting a critic for rules that need one, where the checkpoint has none that fits;
    /// 0: such rules are not measured.
    pub critic_steps: u64,
    pub rules: Vec<Rule>,
    pub seed: u64,
}

/// A call with its true advantage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredCall {
    /// Index in [`CreditSample::tasks`].
    pub task: usize,
    pub rollout: usize,
    /// Index in its rollout.
    pub position: usize,
    /// Number of calls of its rollout.
    pub calls: usize,
    pub role: String,
    /// The rollout's training reward.
    pub reward: f64,
    /// Estimate of the true advantage.
    pub truth: f64,
    /// Variance of that estimate.
    pub noise: f64,
}

/// The credit of one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleCredit {
    pub rule: Rule,
    /// Where its critic is from, for rules that need one.
    pub critic: Option<&'static str>,
    /// One number for each of [`CreditSample::calls`], or why there are none.
    pub credit: Result<Vec<f64>, String>,
}

/// Calls with their true advantages, and the credit of each rule.
#[derive(Debug, Clone)]
pub struct CreditSample {
    pub tasks: Vec<Task>,
    pub calls: Vec<MeasuredCall>,
    pub rules: Vec<RuleCredit>,
    pub counts: Counts,
}

impl Settings {
    /// # Errors
    /// Numbers that are too small, rules of equal names, an experiment without rewards.
    pub fn check(&self, experiment: &Experiment) -> Result<(), TrainError> {
        let reject = |what: &str| Err(TrainError::Invalid(what.to_owned()));
        if experiment.train.objective == Objective::Supervised {
            return reject("train.objective is supervised, and credit belongs to reinforcement");
        }
        if self.tasks == 0 {
            return reject("the number of tasks must be at least 1");
        }
        if self.group < 2 {
            return reject("a group needs 2 or more rollouts: most rules compare them");
        }
        if self.completions < 2 {
            return reject("a state needs 2 or more completions: their noise must be known");
        }
        if self.rules.is_empty() {
            return reject("there is no rule to measure");
        }
        let names = || self.rules.iter().map(|rule| &rule.name);
        match names().enumerate().find(|(n, name)| names().take(*n).any(|other| other == *name)) {
            Some((_, name)) => {
                Err(TrainError::Invalid(format!("the rule `{name}` is named twice: name it once")))
            }
            None => Ok(()),
        }
    }

    /// The experiment whose steps sample what is measured.
    fn prepare(&self, experiment: &Experiment) -> Experiment {
        let mut prepared = experiment.clone();
        prepared.rollout.tasks = self.tasks;
        prepared.rollout.samples = self.group;
        prepared.rollout.refills = 0;
        prepared.rollout.at_least = 1;
        // A reference model would be loaded and not used.
        prepared.algorithm.kl = KlConfig::default();
        prepared
    }
}

/// Samples rollouts with the model with which `experiment` starts, or with the checkpoint `origin` of
/// its run, and measures the rules of `settings`. The tasks are the next ones that the run would
/// train on.
/// The rollouts are written to the store `rollouts`, as those of step 0.
///
/// # Errors
/// Invalid settings; a checkpoint of another model; errors of the engine and of the store; no
/// rollout with a reward; no state with two completions that have one.
pub fn measure(
    experiment: &Experiment,
    environment: &Environment,
    model: &LoadedModel,
    origin: Option<&Origin>,
    settings: &Settings,
    rollouts: &Path,
) -> Result<CreditSample, TrainError> {
    settings.check(experiment)?;
    let experiment = settings.prepare(experiment);
    let mut trainer = build(&experiment, environment, model, RolloutStore::open(rollouts)?)?;
    let mut has_critic = false;
    if let Some(origin) = origin {
        checkpoint::initialise(origin, false, &mut trainer)?;
        let saved = origin.read()?;
        saved.restore_tasks(&mut trainer.tasks)?;
        trainer.tasks.begin(origin.step);
        has_critic = saved.has_critic() && trainer.critic.is_some();
    } else if !experiment.train.init_from.is_empty() {
        let origin = Origin::find(&experiment.train.init_from)?;
        checkpoint::initialise(&origin, false, &mut trainer)?;
    }
    let seed = SeedTree::new(settings.seed).child("credit truth");
    let sampled = sample_shown(&mut trainer, "rollouts", seed.child("step"))?;
    sampled.check_rewards(0, experiment.rollout.at_least)?;
    let text = |ids: &[u32]| trainer.sampler.format.tokenizer().decode(ids, true);
    let place = Place { step: 0, phase: "train" };
    trainer.store.write(place, &sampled.rollouts, &sampled.owners(), &[], Some(&text))?;

    let (calls, counts) = true_advantages(&mut trainer, &sampled, settings, seed.child("truth"))?;
    let fitting = Fitting::sample(
        &mut trainer,
        &settings.rules,
        settings.critic_steps,
        has_critic,
        seed.child("critic"),
    )?;
    let mut found = Vec::new();
    for rule in &settings.rules {
        let step = seed.child("step");
        found.push(credit_of(&mut trainer, rule, &sampled, &calls, &fitting, step)?);
    }
    Ok(CreditSample { tasks: sampled.tasks, calls, rules: found, counts })
}

/// The calls whose truth is measured, and their true advantages.
fn true_advantages(
    trainer: &mut Trainer<'_>,
    sampled: &Sampled,
    settings: &Settings,
    seed: SeedTree,
) -> Result<(Vec<MeasuredCall>, Counts), TrainError> {
    let mut trained = Vec::new();
    for (rollout, trajectory) in
        batch(trainer.experiment, sampled, &CreditConfig::default()).trajectories()
    {
        let calls = trajectory.calls.iter().enumerate().filter(|(_, call)| call.trained);
        trained.extend(calls.map(|(call, _)| (rollout, call)));
    }
    let mut counts = Counts {
        rollouts: sampled.rollouts.len(),
        rollouts_without_reward: sampled
            .rollouts
            .iter()
            .filter(|rollout| rollout.outcome.reward().is_none())
            .count(),
        calls: trained.len(),
        ..Counts::default()
    };
    let chosen = states::draw(&trained, settings.states, seed.child("calls"));
    let plan = states::Plan::of(&sampled.seen, &chosen);
    let completed =
        plan.complete(&mut trainer.sampler, sampled, settings.completions, seed, &mut counts)?;
    let mut calls = Vec::new();
    for (&(rollout, position), &(before, after)) in chosen.iter().zip(&plan.calls) {
        let own = &sampled.seen[rollout];
        let Some((truth, noise)) =
            truth(&completed.values, before, after, || credit_inputs::earned(own, position))
        else {
            counts.calls_without_truth += 1;
            continue;
        };
        calls.push(MeasuredCall {
            task: own.group,
            rollout,
            position,
            calls: own.calls.len(),
            role: own.calls[position].agent_role.clone(),
            reward: own.outcome.reward().unwrap_or_default(),
            truth,
            noise,
        });
    }
    if calls.is_empty() {
        let why = completed.reason.unwrap_or_else(|| "no call was trained".to_owned());
        return Err(TrainError::Invalid(format!("no call has a true advantage: {why}")));
    }
    Ok((calls, counts))
}

/// The advantage of a call between the states `before` and `after` (`None` after the last call), and
/// the variance of its noise; `None` if a value is unknown.
fn truth(
    values: &[Option<StateValue>],
    before: usize,
    after: Option<usize>,
    earned: impl FnOnce() -> f64,
) -> Option<(f64, f64)> {
    let next = match after {
        Some(after) => Some(values[after].as_ref()?),
        None => None,
    };
    Some(values[before].as_ref()?.advantage(earned(), next))
}

/// The credit of `calls` under a rule; `seed` is the step's.
fn credit_of(
    trainer: &mut Trainer<'_>,
    rule: &Rule,
    sampled: &Sampled,
    calls: &[MeasuredCall],
    fitting: &Fitting,
    seed: SeedTree,
) -> Result<RuleCredit, TrainError> {
    let mut found = RuleCredit { rule: rule.clone(), critic: None, credit: Ok(Vec::new()) };
    let mut batch = batch(trainer.experiment, sampled, &rule.algorithm.credit);
    if rule.needs_critic() {
        let fresh;
        let critic = match &trainer.critic {
            Some(critic) if fitting.is_trained(rule, trainer.experiment) => {
                found.critic = Some("of the checkpoint");
                critic
            }
            _ if !fitting.samples.is_empty() => {
                found.critic = Some("fitted");
                fresh = fitting.fit(trainer, rule)?;
                &fresh
            }
            _ => {
                found.credit = Err("no critic".to_owned());
                return Ok(found);
            }
        };
        batch.set_values(&critic.values(&trainer.policy, &batch)?);
    }
    if rule.needs_drafts() && !trainer.environment.agent.drafts() {
        found.credit = Err("the agent reports no answers before a call".to_owned());
        return Ok(found);
    }
    let credit = &rule.algorithm.credit;
    credit_inputs::add_for(credit, &mut batch, sampled, &mut trainer.sampler, seed)?;
    found.credit = match batch.assign(&rule.algorithm, None, 0) {
        Ok(()) => Ok(calls
            .iter()
            .map(|call| batch.credit[call.rollout][call.position].advantage.unwrap_or(0.0))
            .collect()),
        Err(TrainError::Step { what, .. }) => Err(what),
        Err(error) => return Err(error),
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truth_needs_both_values() {
        let value = |mean| Some(StateValue { mean, noise: 0.25 });
        let values = [value(0.5), None, value(0.25)];
        assert_eq!(truth(&values, 0, Some(2), || 0.125), Some((-0.125, 0.5)));
        assert_eq!(truth(&values, 2, None, || 1.0), Some((0.75, 0.25)));
        assert_eq!(truth(&values, 0, Some(1), || 0.0), None);
        assert_eq!(truth(&values, 1, None, || 0.0), None);
    }
}
