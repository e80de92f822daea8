//! The trait of policy losses, their input and output.

use crate::aggregate::COUNT_EPSILON;
use crate::error::ConfigError;
use crate::rows::Rows;

/// A policy loss; implemented by its configuration.
pub(crate) trait LossRule {
    /// Loss and gradient.
    ///
    /// # Panics
    /// If an array does not have one entry per token.
    fn loss(&self, input: &LossInput) -> PolicyLoss;

    /// # Errors
    /// The first invalid value.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The function whose derivative the gradient is.
    fn gradient(&self) -> Gradient {
        Gradient::OfTheLoss
    }

    /// The factor of all advantages of a batch of `samples` rows, of which `without_gradient` are
    /// in groups whose advantages are all 0.
    fn advantage_factor(&self, _samples: usize, _without_gradient: usize) -> f64 {
        1.0
    }

    /// The loss that verl calls `name`, with the settings of [`verl`].
    fn of_verl(_name: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// The settings with which verl's golden files were generated; the files do not include them.
pub(crate) mod verl {
    pub(crate) const CLIP_LOW: f64 = 0.2;
    pub(crate) const CLIP_HIGH: f64 = 0.28;
    pub(crate) const DUAL_CLIP: f64 = 3.0;
}

/// The function whose derivative a loss's gradient is: not every loss is a plain function of the
/// log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradient {
    /// The loss, wherever it is differentiable.
    OfTheLoss,
    /// The loss if all tokens of a row have the same advantage and weight; otherwise a surrogate.
    OfEqualAdvantages,
    /// The loss with its ratios held constant.
    AtConstantRatio,
}

/// Input of a policy loss: flat arrays with one entry per token of the rows.
#[derive(Debug, Clone, Copy)]
pub struct LossInput<'a> {
    pub rows: &'a Rows,
    /// Log-probabilities under the policy that is differentiated.
    pub logp_new: &'a [f64],
    /// Log-probabilities under the policy before the update.
    pub logp_old: &'a [f64],
    pub advantages: &'a [f64],
    /// The weight of each token in the whole batch; see [`crate::loss::LossConfig::token_weights`].
    /// Further factors such as importance weights are multiplied in.
    pub weights: &'a [f64],
}

impl LossInput<'_> {
    pub(crate) fn assert_fits(&self) {
        self.rows.assert_fits("logp_new", self.logp_new);
        self.rows.assert_fits("logp_old", self.logp_old);
        self.rows.assert_fits("advantages", self.advantages);
        self.rows.assert_fits("weights", self.weights);
    }
}

/// Counts and sums over the tokens of a batch or of part of it; parts can be merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossStatistics {
    pub tokens: usize,
    /// Tokens whose ratio was clipped (for the geometric mean: with a positive advantage).
    pub clipped: usize,
    /// Tokens bounded by the dual clip (for the geometric mean: clipped with a negative advantage).
    pub clipped_lower: usize,
    /// Sum of `logp_old − logp_new`: how far the policy moved.
    pub kl_sum: f64,
}

impl LossStatistics {
    /// Adds the counts and sums of another part.
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

    /// Share of tokens bounded by the dual clip.
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

/// The loss of a batch or of part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyLoss {
    pub loss: f64,
    /// d loss / d logp_new, one per token; 0 outside the mask.
    pub grad: Vec<f64>,
    pub statistics: LossStatistics,
}
