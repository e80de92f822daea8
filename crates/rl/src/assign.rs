//! From trajectories to advantages: credit, shaping, comparison.
//!
//! Any credit rule, estimator and loss can be combined as far as the pairing is meaningful
//! ([`AlgorithmConfig::validate`] rejects the rest). This module combines them: credit gives each
//! trained call a return; overlong shaping and a KL penalty in the reward are added to it; then the
//! calls are compared within their task or, with [`GroupBy`], only with calls of the same role or
//! turn.

use std::collections::{HashMap, HashSet};

use crate::advantage::{AdvantageInputs, Advantages};
use crate::config::{AlgorithmConfig, GroupBy};
use crate::credit::{CallReturns, Targets, Trajectory};
use crate::error::{AdvantageError, AssignError, CreditError};
use crate::needs::Need;
use crate::rows::Rows;

/// Credit and advantage of the trained calls, which are the rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assigned {
    /// The return of each call before shaping, or its advantage if the credit rule computes
    /// advantages.
    pub returns: Vec<f64>,
    /// The task group of each call.
    pub groups: Vec<usize>,
    /// The index of each call's trajectory.
    pub trajectories: Vec<usize>,
    pub advantages: Advantages,
    /// Critic targets, if the algorithm has a critic.
    pub targets: Option<Targets>,
}

impl AlgorithmConfig {
    /// Credit and advantages of all trained calls of `trajectories`. `rows` are these calls in
    /// order; `kl_penalties`, one per token, are subtracted from the rewards
    /// ([`crate::kl::KlConfig::penalties`]).
    ///
    /// # Errors
    /// If an input of the credit rule or the estimator is missing, or a number is not finite.
    ///
    /// # Panics
    /// If there is not one row per trained call or one penalty per token.
    pub fn assign(
        &self,
        trajectories: &[Trajectory],
        rows: &Rows,
        kl_penalties: Option<&[f64]>,
    ) -> Result<Assigned, AssignError> {
        let credit = self.credit.assign(trajectories)?;
        assert_eq!(credit.returns.len(), rows.len(), "one row per trained call");
        let shaped = self.shaped(&credit, rows, kl_penalties);
        let needs_values = self.advantage.needs().contains(&Need::Critic);
        let values = needs_values.then(|| token_values(&credit, trajectories, rows)).transpose()?;
        let groups = self.comparison_groups(&credit, trajectories);
        let mut advantages = self.advantage.advantages(&AdvantageInputs {
            rows,
            scores: &shaped.scores,
            groups: &groups,
            rollouts: &credit.trajectories,
            token_rewards: shaped.token_rewards.as_deref(),
            values: values.as_deref(),
            token_credit: credit.per_token.as_deref(),
        })?;
        let targets = match needs_values {
            true => Some(Targets::Tokens(advantages.returns().to_vec())),
            false => credit.targets,
        };
        let (samples, without) = count_without_gradient(&advantages, &groups, rows);
        advantages.scale(self.loss.advantage_factor(samples, without));
        Ok(Assigned {
            returns: credit.returns,
            groups: credit.groups,
            trajectories: credit.trajectories,
            advantages,
            targets,
        })
    }

    /// Scores and token rewards after shaping.
    fn shaped(&self, credit: &CallReturns, rows: &Rows, penalties: Option<&[f64]>) -> Shaped {
        let mut scores = credit.returns.clone();
        if let Some(overlong) = &self.overlong {
            for (row, score) in scores.iter_mut().enumerate() {
                *score += overlong.penalty(rows.active_length(row));
            }
        }
        let token_rewards = penalties.map(|penalties| {
            rows.assert_fits("kl_penalties", penalties);
            let mut rewards = vec![0.0; rows.tokens()];
            for (row, score) in scores.iter_mut().enumerate() {
                let outcome = *score;
                for t in rows.active_in(row) {
                    rewards[t] = -penalties[t];
                    *score -= penalties[t];
                }
                if let Some(last) = rows.active_in(row).next_back() {
                    rewards[last] += outcome;
                }
            }
            rewards
        });
        Shaped { scores, token_rewards }
    }

    /// The comparison group of each row.
    fn comparison_groups(&self, credit: &CallReturns, trajectories: &[Trajectory]) -> Vec<usize> {
        if self.group_by == GroupBy::Task {
            return credit.groups.clone();
        }
        let mut numbers = HashMap::new();
        let place = |row: usize| (credit.groups[row], credit.trajectories[row], credit.calls[row]);
        (0..credit.returns.len())
            .map(|row| {
                let (group, trajectory, call) = place(row);
                let key = match self.group_by {
                    GroupBy::Role => (group, &*trajectories[trajectory].calls[call].agent_role, 0),
                    GroupBy::Task | GroupBy::Turn => (group, "", call),
                };
                let next = numbers.len();
                *numbers.entry(key).or_insert(next)
            })
            .collect()
    }
}

/// The number of rows with tokens, and of those among them whose group has no advantage but 0.
fn count_without_gradient(
    advantages: &Advantages,
    groups: &[usize],
    rows: &Rows,
) -> (usize, usize) {
    let has_gradient = |row: usize| rows.active_in(row).any(|t| advantages.per_token[t] != 0.0);
    let with: HashSet<usize> =
        (0..rows.len()).filter(|&row| has_gradient(row)).map(|row| groups[row]).collect();
    let samples = || (0..rows.len()).filter(|&row| rows.active_length(row) > 0);
    (samples().count(), samples().filter(|&row| !with.contains(&groups[row])).count())
}

struct Shaped {
    scores: Vec<f64>,
    /// Present only with token penalties.
    token_rewards: Option<Vec<f64>>,
}

/// The critic's values at the tokens of the rows.
fn token_values(
    credit: &CallReturns,
    trajectories: &[Trajectory],
    rows: &Rows,
) -> Result<Vec<f64>, AssignError> {
    let mut values = Vec::with_capacity(rows.tokens());
    for (row, range) in rows.ranges().enumerate() {
        let (trajectory, call) = (credit.trajectories[row], credit.calls[row]);
        let own = trajectories[trajectory].calls[call].token_values.as_ref();
        let own = own.ok_or(AdvantageError::NoValues)?;
        if own.len() != range.len() {
            let (values, tokens) = (own.len(), range.len());
            return Err(CreditError::TokenValues { trajectory, call, values, tokens }.into());
        }
        values.extend(own);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::GroupCounters;

    fn config(text: &str) -> AlgorithmConfig {
        let config: AlgorithmConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        config
    }

    /// Two trajectories of write and check.
    fn trajectories() -> Vec<Trajectory> {
        let mut trajectories =
            vec![Trajectory::of_calls(4, 1.0, 2), Trajectory::of_calls(4, 0.0, 2)];
        for trajectory in &mut trajectories {
            for (call, role) in trajectory.calls.iter_mut().zip(["write", "check"]) {
                call.agent_role = role.to_owned();
            }
        }
        trajectories
    }

    const PLAIN: &str = "[advantage]\nname = 'grpo'\ndivide_by_std = false\n";

    #[test]
    fn groups_may_be_narrowed_to_role_or_turn() {
        let mut trajectories = trajectories();
        trajectories[0].calls.swap(0, 1);
        let rows = Rows::dense(&[1; 4]);
        let run = |group_by: &str| {
            let text = format!(
                "group_by = '{group_by}'\n{PLAIN}[credit]\nname = 'last_call'\nothers = 'zero'\n"
            );
            config(&text).assign(&trajectories, &rows, None).unwrap()
        };
        // Earned: check 0, write 1; write 0, check 0.
        let task = run("task");
        assert_eq!(task.returns, [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(task.advantages.per_row, [-0.25, 0.75, -0.25, -0.25]);
        let role = run("role");
        assert_eq!(role.advantages.per_row, [0.0, 0.5, -0.5, 0.0]);
        assert_eq!(role.groups, [4; 4], "the task's group is kept for packing");
        let turn = run("turn");
        assert_eq!(turn.advantages.per_row, [0.0, 0.5, 0.0, -0.5]);
        let counters = GroupCounters { groups: 2, zero_variance: 1, singletons: 0 };
        assert_eq!(turn.advantages.counters, counters);
    }

    #[test]
    fn only_last_calls_are_compared_if_the_others_are_left_out() {
        let mut trajectories = trajectories();
        trajectories.push(Trajectory::of_calls(4, 1.0, 1));
        let last_call = config(&format!("{PLAIN}[credit]\nname = 'last_call'\n"));
        // The rows are the last calls: rewards 1, 0 and 1.
        let rows = Rows::dense(&[1; 3]);
        let assigned = last_call.assign(&trajectories, &rows, None).unwrap();
        assert_eq!(assigned.returns, [1.0, 0.0, 1.0]);
        assert_eq!(assigned.trajectories, [0, 1, 2]);
        let third = 1.0 / 3.0;
        for (ours, theirs) in assigned.advantages.per_row.iter().zip([third, -2.0 * third, third]) {
            assert!((ours - theirs).abs() < 1e-15, "{ours} {theirs}");
        }
        // It is the same if the caller marks the others as not trained.
        trajectories.iter_mut().for_each(|trajectory| last_call.credit.leave_out(trajectory));
        assert_eq!(last_call.assign(&trajectories, &rows, None).unwrap(), assigned);
    }

    #[test]
    fn gpg_makes_up_for_groups_without_variance() {
        let trajectories: Vec<Trajectory> = [(0, 1.0), (0, 0.0), (1, 1.0), (1, 1.0), (2, 0.0)]
            .map(|(group, reward)| Trajectory::of_calls(group, reward, 1))
            .to_vec();
        let rows = Rows::dense(&[2, 1, 3, 1, 1]);
        let run = |loss: &str| {
            let text = format!("{PLAIN}[loss]\n{loss}\n");
            config(&text).assign(&trajectories, &rows, None).unwrap().advantages
        };
        // Two of five rows are in a group with a gradient.
        let paper = run("name = 'gpg'");
        assert_eq!(paper.per_row, [0.5 * 2.5, -0.5 * 2.5, 0.0, 0.0, 0.0]);
        assert_eq!(paper.per_token[..3], [1.25, 1.25, -1.25]);
        let plain = run("name = 'gpg'\nrescale = false");
        assert_eq!(plain.per_row, [0.5, -0.5, 0.0, 0.0, 0.0]);
        assert_eq!(run("name = 'ppo'"), plain);
    }

    #[test]
    fn overlong_penalties_apply_before_the_comparison() {
        let text = format!("{PLAIN}[overlong]\nmax_tokens = 4\nbuffer = 2\n");
        let trajectories = [Trajectory::of_calls(0, 1.0, 1), Trajectory::of_calls(0, 1.0, 1)];
        let assigned = config(&text).assign(&trajectories, &Rows::dense(&[3, 2]), None).unwrap();
        assert_eq!(assigned.returns, [1.0, 1.0]);
        assert_eq!(assigned.advantages.per_row, [-0.25, 0.25]);
    }

    #[test]
    fn kl_penalties_are_subtracted_from_scores_and_token_rewards() {
        let trajectories = [Trajectory::of_calls(0, 1.0, 1), Trajectory::of_calls(0, 0.0, 1)];
        let rows = Rows::dense(&[2, 1]);
        let penalties = [0.25, 0.5, 0.75];
        let by_row = config(PLAIN).assign(&trajectories, &rows, Some(&penalties)).unwrap();
        assert_eq!(by_row.advantages.per_row, [0.5, -0.5]);
        let tokens = config("[advantage]\nname = 'reinforce_plus_plus'\ngamma = 0.5\n");
        let by_token = tokens.assign(&trajectories, &rows, Some(&penalties)).unwrap();
        assert_eq!(by_token.advantages.returns(), [-0.25 + 0.5 * 0.5, 0.5, -0.75]);
    }

    #[test]
    fn a_critic_gives_values_by_token_and_gets_targets() {
        let mut trajectories = [Trajectory::of_calls(0, 1.0, 1)];
        trajectories[0].calls[0].token_values = Some(vec![0.5, 0.25]);
        let gae = config("[advantage]\nname = 'gae'\n");
        let assigned = gae.assign(&trajectories, &Rows::dense(&[2]), None).unwrap();
        assert_eq!(assigned.targets, Some(Targets::Tokens(vec![1.0, 1.0])));
        let short = gae.assign(&trajectories, &Rows::dense(&[3]), None).unwrap_err();
        assert_eq!(short.to_string(), "call 0 of trajectory 0 has 2 token values for 3 tokens");
        trajectories[0].calls[0].token_values = None;
        let none = gae.assign(&trajectories, &Rows::dense(&[2]), None).unwrap_err();
        assert_eq!(none, AssignError::Advantage(AdvantageError::NoValues));
    }

    #[test]
    fn credit_by_token_reaches_the_tokens() {
        let mut trajectories = [Trajectory::of_calls(0, 1.0, 1), Trajectory::of_calls(0, 0.0, 1)];
        for trajectory in &mut trajectories {
            trajectory.calls[0].tokens = 2;
            trajectory.calls[0].token_values = Some(vec![0.5, 0.25]);
        }
        let rows = Rows::dense(&[2, 2]);
        let plain = config("[credit]\nname = 'bilevel_gae'\n[advantage]\nname = 'none'\n");
        let assigned = plain.assign(&trajectories, &rows, None).unwrap();
        assert_eq!(assigned.advantages.per_token, [0.5, 0.75, -0.5, -0.25]);
        assert_eq!(assigned.advantages.per_row, [0.625, -0.375]);
        assert_eq!(assigned.targets, Some(Targets::Tokens(vec![1.0, 1.0, 0.0, 0.0])));
        let white = config("[credit]\nname = 'bilevel_gae'\n[advantage]\nname = 'whiten'\n");
        let white = white.assign(&trajectories, &rows, None).unwrap();
        let sum: f64 = white.advantages.per_token.iter().sum();
        assert!(sum.abs() < 1e-7 && white.advantages.per_token[1] > 1.0);
    }
}
