//! Inputs and outputs of advantage estimators.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{AdvantageError, ConfigError};
use crate::rows::Rows;

/// An estimator of advantages; implemented by its configuration.
pub(crate) trait Estimator {
    /// The advantages of a batch.
    ///
    /// # Errors
    /// A score that is not finite, or a batch that the estimator does not support.
    ///
    /// # Panics
    /// If a slice of the batch does not fit its rows.
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError>;

    /// # Errors
    /// The first invalid value.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// For estimators that compare within groups: whether a group of one gets a non-zero advantage,
    /// which under verl's conventions is the score itself.
    fn takes_groups_of_one(&self) -> bool {
        false
    }

    /// The estimator that verl calls `name`, which may end in parameters.
    fn of_verl(_name: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// Input of an estimator. Per-row slices have one entry per row, per-token slices one per token,
/// flat.
#[derive(Debug, Clone, Copy)]
pub struct AdvantageInputs<'a> {
    pub rows: &'a Rows,
    /// The score of each row.
    pub scores: &'a [f64],
    /// The group of each row: rows of equal numbers are compared with each other.
    pub groups: &'a [usize],
    /// The rollout of each row; numbers are unique in the batch.
    pub rollouts: &'a [usize],
    /// Reward of each token, for token-level estimators; if absent, a row's score is the reward of
    /// its last token inside the mask.
    pub token_rewards: Option<&'a [f64]>,
    /// A critic's value of each token, for GAE.
    pub values: Option<&'a [f64]>,
    /// Credit of each token, from token-level credit rules; if absent, all tokens of a row have its
    /// score. For the estimators that do not compare.
    pub token_credit: Option<&'a [f64]>,
}

impl<'a> AdvantageInputs<'a> {
    /// A batch in which the only rewards are the rows' scores.
    pub fn of_outcomes(
        rows: &'a Rows,
        scores: &'a [f64],
        groups: &'a [usize],
        rollouts: &'a [usize],
    ) -> Self {
        Self {
            rows,
            scores,
            groups,
            rollouts,
            token_rewards: None,
            values: None,
            token_credit: None,
        }
    }

    /// Credit of each token, 0 outside the mask; an error if it is not finite.
    pub(crate) fn token_credit(&self) -> Result<Vec<f64>, AdvantageError> {
        let Some(credit) = self.token_credit else { return Ok(self.rows.spread(self.scores)) };
        self.rows.assert_fits("token_credit", credit);
        let mut earned = vec![0.0; credit.len()];
        for row in 0..self.rows.len() {
            for t in self.rows.active_in(row) {
                if !credit[t].is_finite() {
                    return Err(AdvantageError::Score { row, score: credit[t] });
                }
                earned[t] = credit[t];
            }
        }
        Ok(earned)
    }

    /// The reward of each token.
    pub(crate) fn token_rewards(&self) -> Cow<'a, [f64]> {
        if let Some(rewards) = self.token_rewards {
            self.rows.assert_fits("token_rewards", rewards);
            return Cow::Borrowed(rewards);
        }
        let mut rewards = vec![0.0; self.rows.tokens()];
        for (row, &score) in self.scores.iter().enumerate() {
            if let Some(last) = self.rows.active_in(row).next_back() {
                rewards[last] = score;
            }
        }
        Cow::Owned(rewards)
    }
}

/// Counts of groups; those that are neither `zero_variance` nor `singletons` have a gradient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCounters {
    pub groups: usize,
    /// Groups of two or more whose scores are all equal: their advantages are exactly 0.
    pub zero_variance: usize,
    /// Groups of one.
    pub singletons: usize,
}

/// Output of an estimator.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advantages {
    /// Advantage of each token, 0 outside the mask.
    pub per_token: Vec<f64>,
    /// Advantage of each row; for token-level estimators the mean over its tokens.
    pub per_row: Vec<f64>,
    pub counters: GroupCounters,
    /// The return of each token, for estimators that compute one.
    token_returns: Option<Vec<f64>>,
}

impl Advantages {
    pub(crate) fn of_rows(
        per_row: Vec<f64>,
        batch: &AdvantageInputs,
        counters: GroupCounters,
    ) -> Self {
        let per_token = batch.rows.spread(&per_row);
        Self { per_token, per_row, counters, token_returns: None }
    }

    /// Multiplies the advantages; critic targets that the estimator computed are unchanged.
    pub(crate) fn scale(&mut self, factor: f64) {
        if factor != 1.0 {
            self.per_token.iter_mut().chain(&mut self.per_row).for_each(|a| *a *= factor);
        }
    }

    /// Critic target of each token, 0 outside the mask: the return if the estimator computes one,
    /// else the advantage itself (as in verl).
    pub fn returns(&self) -> &[f64] {
        self.token_returns.as_deref().unwrap_or(&self.per_token)
    }

    pub(crate) fn of_tokens(
        per_token: Vec<f64>,
        returns: Vec<f64>,
        batch: &AdvantageInputs,
        counters: GroupCounters,
    ) -> Self {
        let mean = |row: usize| {
            let count = batch.rows.active_length(row).max(1);
            batch.rows.active_in(row).map(|t| per_token[t]).sum::<f64>() / count as f64
        };
        let per_row = (0..batch.rows.len()).map(mean).collect();
        Self { per_token, per_row, counters, token_returns: Some(returns) }
    }
}

/// Another library whose conventions to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    Verl,
}

/// The unit that counts once in the statistics of a group, its entry.
///
/// An advantage is always `(own score − baseline) / divisor` with the row's own score; only
/// baseline and divisor depend on the unit. A rollout's score is the mean of its rows' scores. If
/// the credit rule gives the calls of a rollout different returns, that mean is their average
/// return, and the rows of a rollout differ in advantage as their returns do. A group whose
/// rollouts have equal scores has no variance and gets 0, even if calls of one rollout differ:
/// there is nothing to compare between rollouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupOver {
    /// Every row, as in LightningRL's paper: rollouts with more calls weigh more, and the calls of
    /// a rollout are part of the baseline of each other.
    #[default]
    Rows,
    /// Every rollout, by the mean over its rows.
    Rollouts,
}

/// The keys of an estimator that compares rollouts by default, and rows under verl's conventions,
/// which know no rollouts of several rows.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RolloutKeys {
    group_over: Option<GroupOver>,
    pub compat: Option<Compat>,
}

impl RolloutKeys {
    /// The unit as written, or else the default.
    pub fn group_over(&self) -> GroupOver {
        self.group_over.unwrap_or(match self.compat {
            Some(Compat::Verl) => GroupOver::Rows,
            None => GroupOver::Rollouts,
        })
    }
}
