//! Policy losses: a scalar and its derivative with respect to each token's log-probability.
//!
//! One file per loss, each a function of its configuration and a [`LossInput`]. A loss is a
//! sum over the tokens inside the mask, weighted by what [`crate::aggregate`] computed for
//! the whole batch; so the losses and gradients of micro-batches of whole rows add up to the
//! batch's. The derivative is in closed form: the caller back-propagates it through whatever
//! computed the log-probabilities. Clipping is not differentiable at its edges; there the
//! derivative is that of the unclipped side, as automatic differentiation has it.
//!
//! `ρ = exp(logp_new − logp_old)` is the probability ratio; log-ratios are clamped to ±20
//! before exponentiation, with derivative 0 beyond.

pub mod cispo;
pub mod entropy;
pub mod geo_mean;
pub mod gpg;
pub mod gspo;
mod pieces;
pub mod ppo;
mod ratio;
pub mod reinforce;
pub mod sapo;
pub mod value;

use serde::{Deserialize, Serialize};

use crate::Rows;
use crate::aggregate::{self, Aggregation, COUNT_EPSILON};
use crate::config::{ConfigError, not_negative, require};

pub use cispo::CispoConfig;
pub use geo_mean::GeoMeanConfig;
pub use gpg::GpgConfig;
pub use gspo::GspoConfig;
pub use ppo::PpoConfig;
pub use reinforce::ReinforceConfig;
pub use sapo::SapoConfig;

pub(crate) use ratio::Ratio;

/// What a policy loss looks at: flat arrays with one entry per token of the rows.
#[derive(Debug, Clone, Copy)]
pub struct LossInput<'a> {
    pub rows: &'a Rows,
    /// Log-probabilities under the policy that is differentiated.
    pub logp_new: &'a [f64],
    /// Log-probabilities under the policy before the update.
    pub logp_old: &'a [f64],
    pub advantages: &'a [f64],
    /// How much each token counts in the whole batch; see [`LossConfig::token_weights`].
    /// Further factors (importance weights, say) multiply in here.
    pub weights: &'a [f64],
}

impl LossInput<'_> {
    fn assert_fits(&self) {
        self.rows.assert_fits("logp_new", self.logp_new);
        self.rows.assert_fits("logp_old", self.logp_old);
        self.rows.assert_fits("advantages", self.advantages);
        self.rows.assert_fits("weights", self.weights);
    }
}

/// Counts and sums over the tokens of a batch or of a part of it; parts merge.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossStatistics {
    pub tokens: usize,
    /// Tokens whose ratio was clipped (of the geometric mean: with a positive advantage).
    pub clipped: usize,
    /// Tokens held by the dual clip (of the geometric mean: clipped with a negative advantage).
    pub clipped_lower: usize,
    /// Sum of `logp_old − logp_new`: how far the policy moved.
    pub kl_sum: f64,
}

impl LossStatistics {
    /// Adds the figures of another part.
    pub fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.clipped += other.clipped;
        self.clipped_lower += other.clipped_lower;
        self.kl_sum += other.kl_sum;
    }

    /// Share of clipped tokens.
    pub fn clip_fraction(&self) -> f64 {
        self.mean(self.clipped as f64)
    }

    /// Share of tokens held by the dual clip.
    pub fn clip_fraction_lower(&self) -> f64 {
        self.mean(self.clipped_lower as f64)
    }

    /// Mean of `logp_old − logp_new`, in nats per token.
    pub fn kl(&self) -> f64 {
        self.mean(self.kl_sum)
    }

    /// verl's masked mean: 0 without tokens.
    fn mean(&self, sum: f64) -> f64 {
        sum / (self.tokens as f64 + COUNT_EPSILON)
    }
}

/// The loss of a batch or of a part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyLoss {
    pub loss: f64,
    /// d loss / d logp_new, one per token; 0 outside the mask.
    pub grad: Vec<f64>,
    pub statistics: LossStatistics,
}

/// A policy loss, by `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum LossConfig {
    Ppo(PpoConfig),
    Gspo(GspoConfig),
    Cispo(CispoConfig),
    Gpg(GpgConfig),
    Reinforce(ReinforceConfig),
    GeoMean(GeoMeanConfig),
    Sapo(SapoConfig),
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::Ppo(PpoConfig::default())
    }
}

impl LossConfig {
    /// Loss and gradient.
    ///
    /// # Panics
    /// If an array does not have one entry per token.
    pub fn loss(&self, input: &LossInput) -> PolicyLoss {
        match self {
            Self::Ppo(config) => ppo::loss(config, input),
            Self::Gspo(config) => gspo::loss(config, input),
            Self::Cispo(config) => cispo::loss(config, input),
            Self::Gpg(_) => gpg::loss(input),
            Self::Reinforce(_) => reinforce::loss(input),
            Self::GeoMean(config) => geo_mean::loss(config, input),
            Self::Sapo(config) => sapo::loss(config, input),
        }
    }

    /// The weight of each token of the whole batch under `mode`, where each row is a rollout of
    /// its own; see [`LossConfig::token_weights_by_rollout`].
    pub fn token_weights(&self, mode: Aggregation, constant: Option<f64>, rows: &Rows) -> Vec<f64> {
        let rollouts: Vec<usize> = (0..rows.len()).collect();
        self.token_weights_by_rollout(mode, constant, rows, &rollouts)
    }

    /// The weight of each token of the whole batch under `mode`, where row r belongs to rollout
    /// `rollouts[r]`. Losses about whole rows have a mode of their own and ignore it: GSPO and
    /// SAPO are always the mean over rows of the mean over tokens, the geometric mean always
    /// the mean over rows.
    ///
    /// # Panics
    /// If there is not one rollout per row.
    pub fn token_weights_by_rollout(
        &self,
        mode: Aggregation,
        constant: Option<f64>,
        rows: &Rows,
        rollouts: &[usize],
    ) -> Vec<f64> {
        match self {
            Self::Ppo(_) | Self::Cispo(_) | Self::Gpg(_) | Self::Reinforce(_) => {
                aggregate::token_weights_by_rollout(mode, constant, rows, rollouts)
            }
            Self::Gspo(_) | Self::Sapo(_) => {
                aggregate::token_weights(Aggregation::SeqMeanTokenMean, None, rows)
            }
            Self::GeoMean(_) => aggregate::row_mean_weights(rows),
        }
    }

    /// # Errors
    /// The first value that the loss cannot work with.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Ppo(config) => config.validate(),
            Self::Gspo(config) => validate_clip(config.clip_low, config.clip_high),
            Self::Cispo(config) => {
                // Here a lower bound below 0 is meant: it switches the lower clip off.
                not_negative("loss.clip_low", config.clip_low)?;
                not_negative("loss.clip_high", config.clip_high)
            }
            Self::Gpg(_) | Self::Reinforce(_) => Ok(()),
            Self::Sapo(config) => config.validate(),
            Self::GeoMean(config) => {
                // Clips of the log-ratio, which may be as far apart as one likes.
                not_negative("loss.clip_low", config.clip_low)?;
                not_negative("loss.clip_high", config.clip_high)
            }
        }
    }
}

/// Refuses clip ranges of a ratio that make no sense.
fn validate_clip(low: f64, high: f64) -> Result<(), ConfigError> {
    require((0.0..=1.0).contains(&low), "loss.clip_low", low, "a number from 0 to 1")?;
    not_negative("loss.clip_high", high)
}
