//! Advantages: how much better than expected each token's call turned out.
//!
//! One file per estimator, each a function of its configuration and a [`Batch`]. Most
//! compare the rows of a group with each other ([`grouping`]) and give all tokens of a row the
//! same advantage; others work token by token. Tokens outside the mask get 0.
//!
//! Libraries differ silently in what they do with a group of one, with the epsilon and with
//! the standard deviation. Here a group of one has nothing to be compared with and gets 0,
//! which the result counts; `compat = "verl"` takes verl's conventions instead.

pub mod gae;
pub mod group;
pub mod grouping;
pub mod max_rl;
pub mod none;
pub mod opo;
pub mod pass_k;
pub mod reinforce_plus_plus;
pub mod reinforce_plus_plus_baseline;
pub mod rloo;
pub mod whiten;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::Rows;
use crate::config::ConfigError;

pub use gae::GaeConfig;
pub use group::GrpoConfig;
pub use max_rl::MaxRlConfig;
pub use none::NoneConfig;
pub use opo::OpoConfig;
pub use pass_k::PassKConfig;
pub use reinforce_plus_plus::ReinforcePlusPlusConfig;
pub use reinforce_plus_plus_baseline::ReinforcePlusPlusBaselineConfig;
pub use rloo::RlooConfig;
pub use whiten::WhitenConfig;

/// What an estimator may look at. Per-row slices have one entry per row, per-token slices one
/// per token, flat.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
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

impl<'a> Batch<'a> {
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
    fn token_credit(&self) -> Result<Vec<f64>, AdvantageError> {
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
    fn token_rewards(&self) -> Cow<'a, [f64]> {
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

/// Why there are no advantages.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdvantageError {
    #[error("row {row} earned {score}, which is not a finite number")]
    Score { row: usize, score: f64 },
    #[error("the advantages cannot be whitened: {tokens} tokens are trained on, and it takes two")]
    TooFewTokens { tokens: usize },
    #[error("group {group} has one sample, and pass@k takes two or more")]
    Singleton { group: usize },
    #[error("generalised advantage estimation needs a critic's values, and there are none")]
    NoValues,
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
    fn of_rows(per_row: Vec<f64>, batch: &Batch, counters: GroupCounters) -> Self {
        let per_token = batch.rows.spread(&per_row);
        Self { per_token, per_row, counters, token_returns: None }
    }

    /// Target of a critic for each token, 0 outside the mask: the return where the estimator
    /// has one, else the advantage itself (as in verl).
    pub fn returns(&self) -> &[f64] {
        self.token_returns.as_deref().unwrap_or(&self.per_token)
    }

    fn of_tokens(
        per_token: Vec<f64>,
        returns: Vec<f64>,
        batch: &Batch,
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

/// An estimator, by `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum AdvantageConfig {
    Grpo(GrpoConfig),
    Rloo(RlooConfig),
    Opo(OpoConfig),
    MaxRl(MaxRlConfig),
    PassK(PassKConfig),
    ReinforcePlusPlus(ReinforcePlusPlusConfig),
    ReinforcePlusPlusBaseline(ReinforcePlusPlusBaselineConfig),
    Gae(GaeConfig),
    Whiten(WhitenConfig),
    None(NoneConfig),
}

impl Default for AdvantageConfig {
    fn default() -> Self {
        Self::Grpo(GrpoConfig::default())
    }
}

impl AdvantageConfig {
    /// The advantages of a batch.
    ///
    /// # Errors
    /// A score that is not finite, or a batch that the estimator cannot work with.
    ///
    /// # Panics
    /// If a slice of the batch does not fit its rows.
    pub fn advantages(&self, batch: &Batch) -> Result<Advantages, AdvantageError> {
        match self {
            Self::Grpo(config) => group::advantages(config, batch),
            Self::Rloo(config) => rloo::advantages(config, batch),
            Self::Opo(config) => opo::advantages(config, batch),
            Self::MaxRl(config) => max_rl::advantages(config, batch),
            Self::PassK(config) => pass_k::advantages(config, batch),
            Self::ReinforcePlusPlus(config) => reinforce_plus_plus::advantages(config, batch),
            Self::ReinforcePlusPlusBaseline(config) => {
                reinforce_plus_plus_baseline::advantages(config, batch)
            }
            Self::Gae(config) => gae::advantages(config, batch),
            Self::Whiten(_) => whiten::advantages(batch),
            Self::None(_) => none::advantages(batch),
        }
    }

    /// # Errors
    /// The first value that the estimator cannot work with.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Grpo(config) => config.validate(),
            Self::PassK(config) => config.validate(),
            Self::ReinforcePlusPlus(config) => config.validate(),
            Self::Gae(config) => config.validate(),
            Self::MaxRl(config) => config.validate(),
            Self::Rloo(_)
            | Self::Opo(_)
            | Self::ReinforcePlusPlusBaseline(_)
            | Self::Whiten(_)
            | Self::None(_) => Ok(()),
        }
    }

    /// The estimator's name in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Grpo(_) => "grpo",
            Self::Rloo(_) => "rloo",
            Self::Opo(_) => "opo",
            Self::MaxRl(_) => "max_rl",
            Self::PassK(_) => "pass_k",
            Self::ReinforcePlusPlus(_) => "reinforce_plus_plus",
            Self::ReinforcePlusPlusBaseline(_) => "reinforce_plus_plus_baseline",
            Self::Gae(_) => "gae",
            Self::Whiten(_) => "whiten",
            Self::None(_) => "none",
        }
    }

    /// Whether it compares the entries of a group, and so needs two or more of them.
    pub fn compares_groups(&self) -> bool {
        match self {
            Self::Grpo(_)
            | Self::Rloo(_)
            | Self::Opo(_)
            | Self::MaxRl(_)
            | Self::PassK(_)
            | Self::ReinforcePlusPlusBaseline(_) => true,
            Self::ReinforcePlusPlus(_) | Self::Gae(_) | Self::Whiten(_) | Self::None(_) => false,
        }
    }

    /// Whether it has something to say about a group of one: under verl's conventions the
    /// score itself.
    pub(crate) fn takes_single_rollouts(&self) -> bool {
        match self {
            Self::Grpo(GrpoConfig { compat, .. })
            | Self::Rloo(RlooConfig { compat, .. })
            | Self::Opo(OpoConfig { compat, .. })
            | Self::ReinforcePlusPlusBaseline(ReinforcePlusPlusBaselineConfig { compat, .. }) => {
                compat.is_some()
            }
            Self::MaxRl(_) | Self::PassK(_) => false,
            Self::ReinforcePlusPlus(_) | Self::Gae(_) | Self::Whiten(_) | Self::None(_) => true,
        }
    }
}
