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
//!
//! A new loss is a file that implements `LossRule` for its configuration, its `mod` line here,
//! and its row in the registry below.

pub mod cispo;
pub mod entropy;
pub mod geo_mean;
pub mod gpg;
pub mod gspo;
mod pieces;
pub mod ppo;
pub mod reinforce;
mod rule;
pub mod sapo;
pub mod value;

use crate::aggregate::{self, Aggregation};
use crate::registry::registry;
use crate::rows::Rows;

use rule::LossRule;

pub use rule::{Gradient, LossInput, LossStatistics, PolicyLoss};

/// How the tokens of a loss are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weighs {
    /// As the configured aggregation says.
    AsAsked,
    /// Always the mean over rows of the mean over tokens.
    RowsOfTokens,
    /// Always the mean over rows, which are one loss each.
    Rows,
}

registry! {
    /// A policy loss, by `name`.
    pub enum LossConfig: LossRule, Weighs, "most with clip_low and clip_high" {
        "ppo", Ppo(ppo::PpoConfig), AsAsked, [];
        "gspo", Gspo(gspo::GspoConfig), RowsOfTokens, [];
        "cispo", Cispo(cispo::CispoConfig), AsAsked, [];
        "gpg", Gpg(gpg::GpgConfig), AsAsked, [];
        "reinforce", Reinforce(reinforce::ReinforceConfig), AsAsked, [];
        "geo_mean", GeoMean(geo_mean::GeoMeanConfig), Rows, [];
        "sapo", Sapo(sapo::SapoConfig), RowsOfTokens, [];
    }
}

impl LossConfig {
    /// Loss and gradient.
    ///
    /// # Panics
    /// If an array does not have one entry per token.
    pub fn loss(&self, input: &LossInput) -> PolicyLoss {
        self.rule().loss(input)
    }

    /// Of what the gradient is the derivative.
    pub fn gradient(&self) -> Gradient {
        self.rule().gradient()
    }

    /// The weight of each token of the whole batch under `mode`, where each row is a rollout of
    /// its own; see [`LossConfig::token_weights_by_rollout`].
    pub fn token_weights(&self, mode: Aggregation, constant: Option<f64>, rows: &Rows) -> Vec<f64> {
        let rollouts: Vec<usize> = (0..rows.len()).collect();
        self.token_weights_by_rollout(mode, constant, rows, &rollouts)
    }

    /// The weight of each token of the whole batch under `mode`, where row r belongs to rollout
    /// `rollouts[r]`. Losses about whole rows have a mode of their own and ignore it.
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
        match self.special() {
            Weighs::AsAsked => aggregate::token_weights_by_rollout(mode, constant, rows, rollouts),
            Weighs::RowsOfTokens => {
                aggregate::token_weights(Aggregation::SeqMeanTokenMean, None, rows)
            }
            Weighs::Rows => aggregate::row_mean_weights(rows),
        }
    }
}
