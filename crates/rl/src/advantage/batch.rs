//! What estimators look at and what they say.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{AdvantageError, ConfigError};
use crate::rows::Rows;

/// An estimator of advantages; implemented by its configuration.
pub(crate) trait Estimator {
    /// The advantages of a batch.
    ///
    /// # Errors
    /// A score that is not finite, or a batch that the estimator cannot work with.
    ///
    /// # Panics
    /// If a slice of the batch does not fit its rows.
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError>;

    /// # Errors
    /// The first value that the estimator cannot work with.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Of an estimator that compares within groups: whether it has something to say about a
    /// group of one all the same, which under verl's conventions is the score itself.
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

/// What an estimator may look at. Per-row slices have one entry per row, per-token slices one
/// per token, flat.
#[derive(Debug, Clone, Copy)]
pub struct AdvantageInputs<'a> {
    pub rows: &'a Rows,
    /// What each row earned.
    pub scores: &'a [f64],
    /// The group of each row: equal numbers are compared with each other.
    pub groups: &'a [usize],
    /// The rollout of each row; numbers are unique in the batch.
    pub rollouts: &'a [usize],
    /// Reward of each token for estimators that work token by token; if absent, a row's score
    /// falls on its last token inside the mask.
    pub token_rewards: Option<&'a [f64]>,
    /// A critic's value of each token, for GAE.
    pub values: Option<&'a [f64]>,
    /// What each token earned, of credit that works token by token; if absent, all tokens of a
    /// row have its score. For the estimators that do not compare.
    pub token_credit: Option<&'a [f64]>,
}

impl<'a> AdvantageInputs<'a> {
    /// A batch in which each row is a rollout of its own and the only reward is its score.
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

    /// What each token earned, 0 outside the mask; an error if that is not finite.
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

/// What became of the groups; the three kinds add up to all groups only with those that
/// taught something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupCounters {
    pub groups: usize,
    /// Groups of two or more whose scores are all equal: their advantages are exactly 0.
    pub zero_variance: usize,
    /// Groups of one.
    pub singletons: usize,
}

/// What an estimator says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advantages {
    /// Advantage of each token, 0 outside the mask.
    pub per_token: Vec<f64>,
    /// Advantage of each row; of estimators that work token by token the mean over its tokens.
    pub per_row: Vec<f64>,
    pub counters: GroupCounters,
    /// The return of each token, of estimators that have one.
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

    /// Target of a critic for each token, 0 outside the mask: the return where the estimator
    /// has one, else the advantage itself (as in verl).
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

/// Another library whose conventions to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    Verl,
}

/// What counts once in the statistics of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupOver {
    /// Every row, as in the paper: rollouts with more calls weigh more.
    #[default]
    Rows,
    /// Every rollout, by the mean over its rows.
    Rollouts,
}
