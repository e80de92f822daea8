//! The rollouts of a step and their training rewards.

use std::collections::{BTreeMap, HashSet};

use leyden_core::{Draft, Outcome, Rollout, SeedTree, Task};

use crate::error::TrainError;
use crate::rounds::{Job, PromptCounts, Spent, Watch};
use crate::sampler::Sampler;
use crate::task_order::{Drawn, TaskOrder};

/// The sampled data of a step.
#[derive(Default)]
pub(crate) struct Sampled {
    pub tasks: Vec<Task>,
    /// The level of each task in the curriculum.
    pub levels: Vec<usize>,
    /// A rollout's group is the index of its task.
    pub rollouts: Vec<Rollout>,
    /// The rollouts with their training rewards, and after them those of earlier steps.
    pub seen: Vec<Rollout>,
    /// Intermediate answers of each rollout.
    pub drafts: Vec<Vec<Draft>>,
    pub prompts: PromptCounts,
    pub spent: Vec<Spent>,
    /// Groups that were sampled but are excluded from training.
    pub left_out: HashSet<usize>,
}

/// The seed of the perturbation of a step's rewards; `seed` is the step's.
pub(crate) fn noise(seed: SeedTree) -> SeedTree {
    seed.child("reward")
}

/// Samples `rollout.samples` rollouts of each of the next `tasks` tasks. With dynamic sampling (DAPO,
/// arXiv 2503.14476) tasks without reward variance are replaced by further ones, until `tasks` tasks
/// have variance or `rollout.refills` rounds are used up. `seed` is the step's.
///
/// # Errors
/// Errors of the engine; no further task that the curriculum allows.
pub(crate) fn sample(
    sampler: &mut Sampler<'_>,
    order: &mut TaskOrder<'_>,
    tasks: usize,
    seed: SeedTree,
    watch: &dyn Watch,
) -> Result<Sampled, TrainError> {
    let (config, reward) = (&sampler.experiment.rollout, &sampler.experiment.reward);
    let (noise, seed) = (noise(seed), seed.child("rollout"));
    let mut sampled = Sampled::default();
    for round in 0..=config.refills {
        let first = sampled.tasks.len();
        for _ in 0..tasks {
            let Drawn { task, level } = order.next_task()?;
            sampled.tasks.push(task);
            sampled.levels.push(level);
        }
        let jobs = (first * config.samples..sampled.tasks.len() * config.samples)
            .map(|id| Job {
                id,
                group: id / config.samples,
                task: &sampled.tasks[id / config.samples],
                seed: seed.index(id as u64),
                played: &[],
            })
            .collect();
        let output = sampler.train(jobs, watch)?;
        sampled.seen.extend(reward.training(&output.rollouts, noise).into_owned());
        sampled.rollouts.extend(output.rollouts);
        sampled.drafts.extend(output.drafts);
        sampled.prompts.add(output.prompts);
        sampled.spent.extend(output.spent);
        if config.refills > 0 {
            sampled.leave_out(tasks);
        }
        let kept = sampled.tasks.len() - sampled.left_out.len();
        if round == config.refills || kept >= tasks {
            break;
        }
    }
    Ok(sampled)
}

impl Sampled {
    /// Excludes the groups without reward variance, and those beyond the first `wanted`. The
    /// reward is the task's: a training reward that depends on the response's length differs
    /// between any two rollouts, and a flipped one at random.
    fn leave_out(&mut self, wanted: usize) {
        let mut varied = HashSet::new();
        let mut first: Vec<Option<f64>> = vec![None; self.tasks.len()];
        for rollout in &self.rollouts {
            let Some(reward) = rollout.outcome.reward() else { continue };
            match first[rollout.group] {
                None => first[rollout.group] = Some(reward),
                Some(known) if known != reward => {
                    varied.insert(rollout.group);
                }
                Some(_) => {}
            }
        }
        let kept: HashSet<usize> =
            (0..self.tasks.len()).filter(|group| varied.contains(group)).take(wanted).collect();
        self.left_out = (0..self.tasks.len()).filter(|group| !kept.contains(group)).collect();
    }

    /// The task of each rollout.
    pub fn owners(&self) -> Vec<&Task> {
        self.rollouts.iter().map(|rollout| &self.tasks[rollout.group]).collect()
    }

    /// The level of the task and the task's reward of each rollout with a reward.
    pub fn rewards_by_level(&self) -> impl Iterator<Item = (usize, f64)> {
        let of = |rollout: &Rollout| Some((self.levels[rollout.group], rollout.outcome.reward()?));
        self.rollouts.iter().filter_map(of)
    }

    /// The mean timing per rollout.
    pub fn time_per_rollout(&self) -> BTreeMap<String, f64> {
        let Spent { agent, model, queue } = Spent::mean(&self.spent);
        [("agent", agent), ("model", model), ("queue", queue)]
            .into_iter()
            .map(|(part, seconds)| (part.to_owned(), seconds))
            .collect()
    }

    /// Fails for a step with fewer rewards than `least`, which indicates a broken setup rather than
    /// a hard task.
    ///
    /// # Errors
    /// In that case, with the reason from the first rollout without a reward.
    pub fn check_rewards(&self, step: u64, least: usize) -> Result<(), TrainError> {
        let rollouts = &self.rollouts;
        let rewarded = rollouts.iter().filter(|r| r.outcome.reward().is_some()).count();
        let reason = rollouts.iter().find_map(|rollout| match &rollout.outcome {
            Outcome::Reward(_) => None,
            Outcome::Missing(why) => Some((&rollout.task_id, why)),
        });
        let Some((task, why)) = reason.filter(|_| rewarded < least.max(1)) else { return Ok(()) };
        let count = match rewarded {
            0 => format!("none of the {} rollouts has a reward", rollouts.len()),
            some => format!(
                "only {some} of {} rollouts have a reward, and rollout.at_least is {least}",
                rollouts.len()
            ),
        };
        Err(TrainError::Step {
            step,
            what: format!(
                "{count}, so there is nothing to learn from; the first without, of task {task}: \
                 {why}"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RewardConfig;

    fn task(id: &str) -> Task {
        Task {
            id: id.to_owned(),
            question: String::new(),
            gold: String::new(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        }
    }

    fn rollout(id: usize, group: usize, reward: f64) -> Rollout {
        Rollout {
            id,
            task_id: String::new(),
            group,
            calls: Vec::new(),
            signals: Vec::new(),
            process_rewards: Vec::new(),
            answer: None,
            outcome: Outcome::Reward(reward),
        }
    }

    #[test]
    fn groups_are_left_out_by_the_task_s_reward_not_by_the_shaped_one() {
        let rollouts = vec![
            rollout(0, 0, 1.0),
            rollout(1, 0, 1.0),
            rollout(2, 1, 0.0),
            rollout(3, 1, 1.0),
            rollout(4, 2, 0.0),
            rollout(5, 2, 0.0),
        ];
        // Training sees the opposite of about half of the rewards.
        let config = RewardConfig { flip: 0.5, ..RewardConfig::default() };
        let varies = |rollouts: &[Rollout]| {
            let reward = |at: usize| rollouts[at].outcome.reward();
            [0, 2, 4].map(|at| reward(at) != reward(at + 1))
        };
        let mut misled = 0;
        for seed in 0..20 {
            let seen = config.training(&rollouts, SeedTree::new(seed)).into_owned();
            misled += usize::from(varies(&seen) != varies(&rollouts));
            let mut sampled = Sampled {
                tasks: ["a", "b", "c"].map(task).to_vec(),
                rollouts: rollouts.clone(),
                seen,
                ..Sampled::default()
            };
            sampled.leave_out(3);
            assert_eq!(sampled.left_out, HashSet::from([0, 2]));
        }
        assert!(misled > 0, "the training rewards never differed in variance");
    }
}
