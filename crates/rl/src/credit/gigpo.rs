//! GiGPO: a group of episodes, and groups of equal states within it.
//!
//! Feng et al., *Group-in-Group Policy Optimization*, arXiv 2505.10978. A call's advantage is
//! the sum of two comparisons: of its episode's reward with those of the group, and of its
//! return to go with those of the calls made in the same state (the anchor) anywhere in the
//! group: `A = A_episode + ω A_step`. Trajectories that pass through a common state thus
//! compare what they did there, without a critic.
//!
//! What a state is, the agent must say ([`crate::credit::EpisodeCall::anchor`]): of an agent that
//! queries a database, the question with the result of the query so far. States seen once
//! have nothing to be compared with and get `A_step = 0`.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{Batch, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::credit::episode::{Episode, returns_to_go};
use crate::credit::rule::{CreditRule, Ruling};
use crate::error::{ConfigError, CreditError, fraction, not_negative};
use crate::rows::Rows;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GigpoCredit {
    /// Discount per call of the return to go.
    pub gamma: f64,
    /// Factor ω of the comparison of steps.
    pub step_weight: f64,
    /// Whether both comparisons divide by the standard deviation.
    pub divide_by_std: bool,
    /// Added to the standard deviation.
    pub epsilon: f64,
    /// What counts once in the comparison of episodes: every call, as in the authors' code, or
    /// every rollout.
    pub group_over: GroupOver,
}

impl Default for GigpoCredit {
    fn default() -> Self {
        Self {
            gamma: 0.95,
            step_weight: 1.0,
            divide_by_std: true,
            epsilon: 1e-6,
            group_over: GroupOver::Rows,
        }
    }
}

impl CreditRule for GigpoCredit {
    fn assign(&self, episodes: &[Episode]) -> Result<Ruling, CreditError> {
        Ok(advantages(self, episodes)?.into())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("credit.gamma", self.gamma)?;
        not_negative("credit.step_weight", self.step_weight)?;
        not_negative("credit.epsilon", self.epsilon)
    }
}

/// The sum of both comparisons for each trained call, 0 for others.
///
/// # Errors
/// If a trained call has no anchor, or a reward is not finite.
pub fn advantages(config: &GigpoCredit, episodes: &[Episode]) -> Result<Vec<f64>, CreditError> {
    let mut calls = Trained::default();
    let mut states = HashMap::new();
    let mut place = 0;
    for (index, episode) in episodes.iter().enumerate() {
        let returns = returns_to_go(&episode.step_rewards(), config.gamma);
        for (number, call) in episode.calls.iter().enumerate() {
            if call.trained {
                let anchor = call.anchor.as_deref().ok_or(CreditError::Missing {
                    rule: "gigpo",
                    what: "the anchor of every call",
                    why: "calls are compared that were made in equal states, and the agent must \
                          name them",
                    episode: index,
                    call: number,
                })?;
                let next = states.len();
                calls.places.push(place);
                calls.groups.push(episode.group);
                calls.states.push(*states.entry((episode.group, anchor)).or_insert(next));
                calls.episodes.push(index);
                calls.rewards.push(episode.reward);
                calls.returns.push(returns[number]);
            }
            place += 1;
        }
    }
    let mut all = vec![0.0; place];
    for (&place, advantage) in calls.places.iter().zip(calls.compare(config)?) {
        all[place] = advantage;
    }
    Ok(all)
}

/// The trained calls, one entry each.
#[derive(Default)]
struct Trained {
    /// Index among all calls.
    places: Vec<usize>,
    groups: Vec<usize>,
    /// Number of group and state.
    states: Vec<usize>,
    episodes: Vec<usize>,
    /// The episode's reward.
    rewards: Vec<f64>,
    /// The return to go.
    returns: Vec<f64>,
}

impl Trained {
    fn compare(&self, config: &GigpoCredit) -> Result<Vec<f64>, CreditError> {
        // Comparisons look at numbers of rows, not at their tokens.
        let rows = Rows::dense(&vec![0; self.places.len()]);
        let compare = |scores, groups, over| {
            let batch = Batch::of_outcomes(&rows, scores, groups, &self.episodes);
            Grouping::new(&batch, over).map(|grouping| {
                grouping.standardised(&batch, None, config.divide_by_std, config.epsilon)
            })
        };
        let episode = compare(&self.rewards, &self.groups, config.group_over)?;
        let step = compare(&self.returns, &self.states, GroupOver::Rows)?;
        let sum = |(e, s): (&f64, &f64)| e + config.step_weight * s;
        Ok(episode.iter().zip(&step).map(sum).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(group: usize, reward: f64, anchors: &[&str]) -> Episode {
        let mut episode = Episode::of_calls(group, reward, anchors.len());
        for (call, anchor) in episode.calls.iter_mut().zip(anchors) {
            call.anchor = Some((*anchor).to_owned());
        }
        episode
    }

    fn plain() -> GigpoCredit {
        GigpoCredit {
            gamma: 0.5,
            step_weight: 2.0,
            divide_by_std: false,
            group_over: GroupOver::Rollouts,
            ..GigpoCredit::default()
        }
    }

    #[test]
    fn calls_of_equal_states_are_compared_by_hand() {
        // Both begin in `start`; the second finds `table` on its way.
        let episodes = [episode(0, 1.0, &["start"]), episode(0, 0.0, &["start", "table"])];
        let ours = advantages(&plain(), &episodes).unwrap();
        // Episodes: mean 0.5. In `start` the returns to go are 1 and 0, mean 0.5; `table` was
        // seen once.
        assert_eq!(ours, [0.5 + 2.0 * 0.5, -0.5 - 2.0 * 0.5, -0.5]);
    }

    #[test]
    fn the_return_to_go_is_discounted_by_call() {
        // `start` is visited twice by the first episode: returns 0.5 and 1 beside 0.
        let episodes = [episode(0, 1.0, &["start", "start"]), episode(0, 0.0, &["start"])];
        let ours = advantages(&plain(), &episodes).unwrap();
        assert_eq!(ours, [0.5 + 2.0 * 0.0, 0.5 + 2.0 * 0.5, -0.5 - 2.0 * 0.5]);
    }

    #[test]
    fn equal_names_in_different_groups_are_different_states() {
        let episodes = [
            episode(0, 1.0, &["start"]),
            episode(1, 0.0, &["start"]),
            episode(0, 1.0, &["other"]),
            episode(1, 0.0, &["other"]),
        ];
        assert_eq!(advantages(&plain(), &episodes).unwrap(), [0.0; 4]);
    }

    #[test]
    fn over_rows_long_episodes_weigh_more_in_the_comparison_of_episodes() {
        let episodes = [episode(0, 1.0, &["a", "b", "c"]), episode(0, 0.0, &["d"])];
        let rows = GigpoCredit { group_over: GroupOver::Rows, ..plain() };
        assert_eq!(advantages(&rows, &episodes).unwrap(), [0.25, 0.25, 0.25, -0.75]);
    }

    #[test]
    fn with_deviations_both_parts_are_standardised() {
        let episodes = [episode(0, 1.0, &["start"]), episode(0, 0.0, &["start"])];
        let ours = advantages(&GigpoCredit::default(), &episodes).unwrap();
        let unit = 0.5 / (0.5_f64.sqrt() + 1e-6);
        assert_eq!(ours, [2.0 * unit, -2.0 * unit]);
    }

    #[test]
    fn a_call_without_anchor_is_told_unless_it_is_not_trained_on() {
        let mut episodes = [episode(0, 1.0, &["start"]), Episode::of_calls(0, 0.0, 1)];
        let error = advantages(&plain(), &episodes).unwrap_err().to_string();
        assert!(error.contains("call 0 of episode 1") && error.contains("equal states"), "{error}");
        episodes[1].calls[0].trained = false;
        assert_eq!(advantages(&plain(), &episodes).unwrap(), [0.0, 0.0]);
    }
}
