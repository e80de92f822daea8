//! Policy losses: a scalar and its derivative with respect to each token's log-probability.
//!
//! One file per loss, each a function of its configuration and a [`LossInput`]. A loss is a sum
//! over the tokens inside the mask, with the weights that [`crate::aggregate`] computed for the
//! whole batch; so the losses and gradients of micro-batches of whole rows add up to the batch's.
//! The derivative is in closed form: the caller back-propagates it to the parameters. Clipping is
//! not differentiable at its edges; there the derivative is that of the unclipped side, as in
//! automatic differentiation.
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

use crate::aggregate::{self, Aggregation, AggregationConstant};
use crate::registry::registry;
use crate::rows::Rows;

use rule::LossRule;

pub use rule::{Gradient, LossInput, LossStatistics, PolicyLoss};

/// How the tokens of a loss are weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weighting {
    /// By the configured aggregation.
    Configured,
    /// Always the mean over rows of the mean over tokens.
    RowsOfTokens,
    /// Always the mean over rows, each with a single loss.
    Rows,
}

registry! {
    /// A policy loss, by `name`.
    pub enum LossConfig: LossRule, Weighting,
        "most with clip_low and clip_high; gspo, sapo and geo_mean have one aggregation, \
         seq-mean-token-mean; gpg takes rescale"
    {
        "ppo", Ppo(ppo::PpoConfig), Configured, [];
        "gspo", Gspo(gspo::GspoConfig), RowsOfTokens, [];
        "cispo", Cispo(cispo::CispoConfig), Configured, [];
        "gpg", Gpg(gpg::GpgConfig), Configured, [];
        "reinforce", Reinforce(reinforce::ReinforceConfig), Configured, [];
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

    /// The function whose derivative the gradient is.
    pub fn gradient(&self) -> Gradient {
        self.rule().gradient()
    }

    /// The factor of all advantages of a batch of `samples` rows, of which `without_gradient` are
    /// in groups whose advantages are all 0; 1 for most losses.
    pub fn advantage_factor(&self, samples: usize, without_gradient: usize) -> f64 {
        self.rule().advantage_factor(samples, without_gradient)
    }

    /// The aggregation if none is configured.
    pub fn default_aggregation(&self) -> Aggregation {
        match self.special() {
            Weighting::Configured => Aggregation::default(),
            Weighting::RowsOfTokens | Weighting::Rows => Aggregation::SeqMeanTokenMean,
        }
    }

    /// Whether the loss can be aggregated by `mode`. A loss on whole rows is by definition a mean
    /// over rows.
    pub fn takes_aggregation(&self, mode: Aggregation) -> bool {
        self.special() == Weighting::Configured || mode == self.default_aggregation()
    }

    /// The weight of each token of the whole batch under `mode`, with one rollout per row; see
    /// [`LossConfig::token_weights_by_rollout`].
    pub fn token_weights(
        &self,
        mode: Aggregation,
        constant: Option<AggregationConstant>,
        rows: &Rows,
    ) -> Vec<f64> {
        let rollouts: Vec<usize> = (0..rows.len()).collect();
        self.token_weights_by_rollout(mode, constant, rows, &rollouts)
    }

    /// The weight of each token of the whole batch under `mode`, with row r belonging to rollout
    /// `rollouts[r]`.
    ///
    /// # Panics
    /// If there is not one rollout per row, the loss does not take `mode`, or `mode` needs a
    /// constant and there is none.
    pub fn token_weights_by_rollout(
        &self,
        mode: Aggregation,
        constant: Option<AggregationConstant>,
        rows: &Rows,
        rollouts: &[usize],
    ) -> Vec<f64> {
        assert!(self.takes_aggregation(mode), "loss {} has another aggregation", self.name());
        match self.special() {
            Weighting::Configured => {
                aggregate::token_weights_by_rollout(mode, constant, rows, rollouts)
            }
            Weighting::RowsOfTokens => aggregate::token_weights(mode, None, rows),
            Weighting::Rows => aggregate::row_mean_weights(rows),
        }
    }
}
