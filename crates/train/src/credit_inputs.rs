//! Inputs of credit rules beyond the rollout itself.
//!
//! A rollout has the calls and the outcome. Rules that evaluate a call relative to its state need
//! more: the name of a state is its prompt, counterfactual rewards are those of the latest answer
//! before a call, values come from a critic or are the mean reward of fresh completions from the
//! same state.

use std::collections::{HashMap, HashSet};

use leyden_core::{Rollout, Scorer, SeedTree};
use leyden_rl::credit::CreditConfig;
use leyden_rl::needs::Need;
use rayon::prelude::*;

use crate::batch::Batch;
use crate::config::RewardConfig;
use crate::error::TrainError;
use crate::numbers::mean;
use crate::rounds::Job;
use crate::sample::{self, Sampled};
use crate::sampler::Sampler;

/// Metrics of the added inputs, by name.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// Adds the inputs of the algorithm's credit rule, except a critic's values, to the trajectories of
/// a batch. `seed` is the step's.
///
/// # Errors
/// Errors of the engine when sampling completions.
pub(crate) fn add(
    batch: &mut Batch,
    sampled: &Sampled,
    sampler: &mut Sampler<'_>,
    seed: SeedTree,
) -> Result<Figures, TrainError> {
    let experiment = sampler.experiment;
    add_for(&experiment.algorithm.credit, batch, sampled, sampler, seed)
}

/// Like [`add`], for the credit rule `credit`.
///
/// # Errors
/// As [`add`].
pub(crate) fn add_for(
    credit: &CreditConfig,
    batch: &mut Batch,
    sampled: &Sampled,
    sampler: &mut Sampler<'_>,
    seed: SeedTree,
) -> Result<Figures, TrainError> {
    let mut figures = Figures::new();
    for need in credit.needs() {
        match need {
            Need::Anchors => name_states(batch, sampled),
            Need::Counterfactuals => {
                let scorer = &*sampler.environment.scorer;
                score_without(batch, sampled, scorer, &sampler.experiment.reward, seed);
            }
            Need::Completions => figures = complete(batch, sampled, sampler, seed)?,
            // Groups always exist, and the critic's values are already set.
            Need::Group | Need::Critic => {}
        }
    }
    Ok(figures)
}

/// The counterfactual reward of each trajectory without each call: that of the latest answer before
/// it, with the perturbation that the trajectory's own reward has. `seed` is the step's.
fn score_without(
    batch: &mut Batch,
    sampled: &Sampled,
    scorer: &dyn Scorer,
    reward: &RewardConfig,
    seed: SeedTree,
) {
    let noise = sample::noise(seed);
    batch.trajectories().par_bridge().for_each(|(index, trajectory)| {
        let rollout = &sampled.rollouts[index];
        let task = &sampled.tasks[rollout.group];
        let mut known: HashMap<Option<usize>, Option<f64>> = HashMap::new();
        for (number, call) in trajectory.calls.iter_mut().enumerate() {
            let drafts = &sampled.drafts[index];
            let latest = drafts.iter().rposition(|draft| draft.call < number);
            let answer = latest.map(|at| drafts[at].answer.as_str());
            let score = || scorer.score(task, answer).ok().map(|score| score.reward);
            let truth = *known.entry(latest).or_insert_with(score);
            call.reward_without =
                truth.map(|truth| reward.of_beginning(rollout, number, answer, truth, noise));
        }
    });
}

/// Values of the states before trained calls: mean rewards of completions from there. Other
/// rollouts of the group that visited the same state count as completions; each state is filled up
/// to `rollout.completions` by sampling.
fn complete(
    batch: &mut Batch,
    sampled: &Sampled,
    sampler: &mut Sampler<'_>,
    seed: SeedTree,
) -> Result<Figures, TrainError> {
    let states = States::of(batch, sampled);
    let (noise, seed) = (seed.child("completions' reward"), seed.child("completions"));
    let target = sampler.experiment.rollout.completions;
    let mut jobs = Vec::new();
    let mut owners = Vec::new();
    for (state, visits) in states.visits.iter().enumerate() {
        let (rollout, call) = visits[0];
        let origin = &sampled.rollouts[rollout];
        for _ in visits.len()..=target {
            let id = jobs.len();
            jobs.push(Job {
                id,
                group: origin.group,
                task: &sampled.tasks[origin.group],
                seed: seed.index(id as u64),
                played: &origin.calls[..call],
            });
            owners.push(state);
        }
    }
    let completed = sampler.train(jobs, &())?.rollouts;
    let completed = sampler.experiment.reward.training(&completed, noise);
    let mut fresh: Vec<Vec<f64>> = vec![Vec::new(); states.visits.len()];
    for (&state, rollout) in owners.iter().zip(completed.iter()) {
        let (_, played) = states.visits[state][0];
        fresh[state].extend(return_from(rollout, played));
    }
    let mut without_value = HashSet::new();
    for (index, trajectory) in batch.trajectories() {
        for (number, call) in trajectory.calls.iter_mut().enumerate().filter(|(_, c)| c.trained) {
            let Some(&state) = states.numbers.get(&(index, number)) else { continue };
            let others = states.visits[state].iter().filter(|&&(other, _)| other != index);
            let others = others.filter_map(|&(other, at)| return_from(&sampled.seen[other], at));
            let all: Vec<f64> = fresh[state].iter().copied().chain(others).collect();
            // If every completion failed, the trajectory's own return, so the advantage is 0.
            if all.is_empty() {
                without_value.insert(state);
            }
            let own = return_from(&sampled.seen[index], number);
            call.value = if all.is_empty() { own } else { Some(mean(&all)) };
        }
    }
    let tokens: usize = completed
        .iter()
        .zip(&owners)
        .map(|(rollout, &state)| {
            let (_, played) = states.visits[state][0];
            let own = rollout.calls.iter().skip(played);
            own.map(|call| call.response_ids.len()).sum::<usize>()
        })
        .sum();
    let failed = completed.iter().filter(|rollout| rollout.outcome.reward().is_none()).count();
    let mut figures = vec![
        ("completions", completed.len() as f64),
        ("completion_tokens", tokens as f64),
        ("states", states.visits.len() as f64),
    ];
    let losses = [("completions_failed", failed), ("states_without_value", without_value.len())];
    figures.extend(losses.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name, n as f64)));
    Ok(figures)
}

/// What a rollout earned from call `call` on: the process rewards of that call and later ones, and
/// the reward of the outcome, if there is one.
pub(crate) fn return_from(rollout: &Rollout, call: usize) -> Option<f64> {
    let later = rollout.process_rewards.iter().filter(|reward| reward.call >= call);
    Some(later.map(|reward| reward.value).sum::<f64>() + rollout.outcome.reward()?)
}

/// What a rollout earned from call `call` up to the next one: the process rewards of the call, and
/// after the last call the reward of the outcome, if there is one.
pub(crate) fn earned(rollout: &Rollout, call: usize) -> f64 {
    if call + 1 >= rollout.calls.len() {
        return return_from(rollout, call).unwrap_or_default();
    }
    rollout.process_rewards.iter().filter(|reward| reward.call == call).map(|r| r.value).sum()
}

/// The states of a batch's trained calls, each with its visits.
#[derive(Default)]
struct States {
    /// Rollout and call of every visit.
    visits: Vec<Vec<(usize, usize)>>,
    /// The state of each trained call, by rollout and call.
    numbers: HashMap<(usize, usize), usize>,
}

impl States {
    /// Equal prompts within a task are one state: the policy cannot distinguish them.
    fn of(batch: &mut Batch, sampled: &Sampled) -> Self {
        let mut known: HashMap<(usize, &[u32]), usize> = HashMap::new();
        let mut states = Self::default();
        for (index, trajectory) in batch.trajectories() {
            let rollout = &sampled.seen[index];
            for (number, _) in trajectory.calls.iter().enumerate().filter(|(_, c)| c.trained) {
                let key = (rollout.group, rollout.calls[number].prompt_ids.as_slice());
                let state = *known.entry(key).or_insert_with(|| {
                    states.visits.push(Vec::new());
                    states.visits.len() - 1
                });
                states.visits[state].push((index, number));
                states.numbers.insert((index, number), state);
            }
        }
        states
    }
}

/// Names the state of each trained call.
fn name_states(batch: &mut Batch, sampled: &Sampled) {
    let states = States::of(batch, sampled);
    for (index, trajectory) in batch.trajectories() {
        for (number, call) in trajectory.calls.iter_mut().enumerate() {
            call.anchor = states.numbers.get(&(index, number)).map(usize::to_string);
        }
    }
}
