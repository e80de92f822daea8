//! Training on groups of earlier steps again (`[train.replay]`).
//!
//! A step has `rollout.tasks` groups. Of these, round(`share` · `rollout.tasks`) are drawn, without
//! replacement and by the seed, from the groups that the latest `steps` steps sampled; the others
//! are fresh. The first steps draw as many as there are. A group is drawn as a whole, so that its
//! rollouts are compared with each other and with no others, and any step may draw it again. Fresh
//! groups without a trained call, among them those that dynamic sampling left out, are never drawn.
//!
//! `rollouts.sqlite` is the buffer: a drawn group is read from it, by a resumed run as by any other.
//! What training needs is there: token ids, the sampler's log-probabilities, signals, rewards. The
//! training reward (`reward.*`) is computed again with the seed of the group's own step, and credit
//! and advantages anew. The groups are not written again; the table `replayed` has the origin of
//! each (`step`, `grp` → `from_step`, `from_grp`). The metrics of rollouts (reward, length, signals)
//! are those of the fresh ones, the metrics of the update those of all.
//!
//! These samples are of earlier weights: see [`crate::staleness`] for the ratios and the correction.

use leyden_core::{Rollout, SeedTree};
use rand::seq::SliceRandom;

use crate::error::TrainError;
use crate::sample::{self, Sampled};
use crate::store::read::GroupKey;
use crate::trainer::Trainer;

/// `count` of the groups `available`, or all if there are fewer, drawn without replacement and in
/// the order of `available`. `seed` is the draw's own.
pub fn draw(available: &[GroupKey], count: usize, seed: SeedTree) -> Vec<GroupKey> {
    let mut places: Vec<usize> = (0..available.len()).collect();
    places.shuffle(&mut seed.rng());
    places.truncate(count);
    places.sort_unstable();
    places.into_iter().map(|place| available[place]).collect()
}

/// A group of an earlier step.
pub(crate) struct Replayed {
    pub key: GroupKey,
    /// Its rollouts with their training rewards.
    seen: Vec<Rollout>,
}

impl Trainer<'_> {
    /// The groups of earlier steps that step `step` trains on.
    ///
    /// # Errors
    /// Errors of the store.
    pub(crate) fn replayed(&self, step: u64) -> Result<Vec<Replayed>, TrainError> {
        let replay = &self.experiment.train.replay;
        if !replay.is_on() {
            return Ok(Vec::new());
        }
        let first = step.saturating_sub(replay.steps);
        let available = self.store.trained_groups(first, step - 1)?;
        let count = replay.groups(self.experiment.rollout.tasks);
        let drawn = draw(&available, count, self.step_seed(step).child("replay"));
        drawn
            .into_iter()
            .map(|key| {
                let noise = sample::noise(self.step_seed(key.step));
                let rollouts = self.store.group(key)?;
                let seen = self.experiment.reward.training(&rollouts, noise).into_owned();
                Ok(Replayed { key, seen })
            })
            .collect()
    }
}

impl Sampled {
    /// Adds groups of earlier steps after the fresh ones.
    pub fn replay(&mut self, groups: Vec<Replayed>) {
        let first = self.tasks.len();
        for (group, replayed) in (first..).zip(groups) {
            for rollout in replayed.seen {
                let id = self.seen.len();
                self.seen.push(Rollout { id, group, ..rollout });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use leyden_core::Outcome;

    use super::*;

    fn groups(steps: u64, each: usize) -> Vec<GroupKey> {
        let of = |step| (0..each).map(move |group| GroupKey { step, group });
        (1..=steps).flat_map(of).collect()
    }

    #[test]
    fn a_draw_is_a_sorted_subset_fixed_by_its_seed() {
        for seed in 0..200 {
            let seed = SeedTree::new(seed);
            let available = groups(seed.seed() % 6, 1 + (seed.seed() / 7 % 5) as usize);
            let count = (seed.seed() / 91 % 12) as usize;
            let drawn = draw(&available, count, seed);
            assert_eq!(drawn.len(), count.min(available.len()));
            assert!(drawn.iter().all(|group| available.contains(group)));
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]), "{drawn:?}");
            assert_eq!(drawn, draw(&available, count, seed));
        }
    }

    #[test]
    fn every_group_is_drawn_equally_often() {
        let available = groups(5, 4);
        let mut counts = vec![0; available.len()];
        for seed in 0..4000 {
            for group in draw(&available, 5, SeedTree::new(1).index(seed)) {
                counts[available.iter().position(|other| *other == group).unwrap()] += 1;
            }
        }
        // 1000 each; the standard deviation is 27.
        assert!(counts.iter().all(|count| (880..1120).contains(count)), "{counts:?}");
    }

    #[test]
    fn earlier_groups_follow_the_fresh_ones() {
        let rollout = |id, group| Rollout {
            id,
            task_id: format!("task-{id}-{group}"),
            group,
            calls: Vec::new(),
            signals: Vec::new(),
            process_rewards: Vec::new(),
            answer: None,
            outcome: Outcome::Reward(1.0),
        };
        let task = leyden_core::Task {
            id: String::new(),
            question: String::new(),
            gold: String::new(),
            labels: Vec::new(),
            fields: serde_json::Map::new(),
        };
        let fresh = vec![rollout(0, 0), rollout(1, 0), rollout(2, 1), rollout(3, 1)];
        let mut sampled = Sampled {
            tasks: vec![task.clone(), task],
            seen: fresh.clone(),
            rollouts: fresh,
            ..Sampled::default()
        };
        let replayed = |step, group, ids: [usize; 2]| Replayed {
            key: GroupKey { step, group },
            seen: ids.map(|id| rollout(id, group)).to_vec(),
        };
        sampled.replay(vec![replayed(1, 1, [2, 3]), replayed(2, 0, [0, 1])]);
        let places: Vec<(usize, usize)> = sampled.seen.iter().map(|r| (r.id, r.group)).collect();
        let expected = [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)];
        assert_eq!(places, expected);
        let ids: HashSet<usize> = places.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), 8);
        assert_eq!(sampled.seen[4].task_id, "task-2-1");
        assert_eq!(sampled.rollouts.len(), 4);
    }
}
