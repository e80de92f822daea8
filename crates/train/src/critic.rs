//! The critic, for algorithms that need one.
//!
//! It computes the values of a step's states before credit assignment and is fitted to the targets
//! from credit before the policy is updated, so a value and its target belong to the same policy.
//! The states are the policy's, or those of a trunk of the critic's own, which is then fitted with
//! the value head. The policy's states are computed per pack and kept only if a step has a single
//! pack, so memory is bounded like the policy's.

use leyden_core::SeedTree;
use leyden_lm::optim::{Optimizer, OptimizerConfig, clip_grad_norms};
use leyden_lm::policy::forest::Pack;
use leyden_lm::policy::{Policy, ValueHead};
use leyden_rl::credit::Targets;
use leyden_rl::loss::value::{self, ValueConfig, ValueInput, ValueLoss};
use tch::Tensor;

use crate::batch::Batch;
use crate::config::Experiment;
use crate::error::TrainError;
use crate::trunk::Trunk;

/// A value head and its optimiser.
pub struct Critic<'a> {
    experiment: &'a Experiment,
    pub head: ValueHead,
    pub optimizer: Optimizer,
    /// Absent if the value head reads the policy's states.
    pub trunk: Option<Trunk>,
}

/// Metrics of fitting a critic.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CriticFigures {
    /// Loss of the first pass, before any update.
    pub loss: f64,
    /// Share of the targets' variance explained before fitting; negative if worse than their mean.
    pub explained_variance: f64,
    /// Norm of the gradient before clipping, mean over the passes.
    pub grad_norm: f64,
}

/// What a critic is fitted to; per-token arrays are flat over the batch.
struct Fit<'a> {
    batch: &'a Batch,
    /// Values before fitting.
    before: &'a [f64],
    targets: &'a [f64],
    weights: &'a [f64],
    clip: f64,
}

impl Fit<'_> {
    /// The loss of a pack's `predicted` values, one per unique action, and its derivative with
    /// respect to them.
    fn loss(&self, pack: &Pack, predicted: &[f64]) -> (f64, Vec<f64>) {
        let rows = self.batch.shape_of(pack);
        let ValueLoss { loss, grad, .. } = value::loss(
            &ValueConfig { clip: self.clip },
            &ValueInput {
                rows: &rows,
                values_new: &pack.gather(predicted).concat(),
                values_old: &self.batch.select(self.before, pack),
                returns: &self.batch.select(self.targets, pack),
                weights: &self.batch.select(self.weights, pack),
            },
        );
        (loss, pack.scatter(&rows.ranges().map(|r| grad[r].to_vec()).collect::<Vec<_>>()))
    }
}

impl<'a> Critic<'a> {
    /// The policy must have the run's initial weights, from which a trunk of its own starts.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        experiment: &'a Experiment,
        policy: &Policy,
        seed: SeedTree,
    ) -> Result<Self, TrainError> {
        let config = &experiment.critic;
        let width = policy.config().hidden_size;
        let inner = if config.width == 0 { width } else { config.width };
        let head = ValueHead::new(width, inner, policy.device(), seed.child("critic"))?;
        let options = OptimizerConfig {
            lr: config.learning_rate,
            weight_decay: 0.0,
            ..OptimizerConfig::default()
        };
        let optimizer = Optimizer::new(head.parameters(), options)?;
        let trunk = experiment.has_own_trunk().then(|| Trunk::new(config, policy)).transpose()?;
        Ok(Self { experiment, head, optimizer, trunk })
    }

    /// The value of the state before each token of a batch, flat; states are those of `policy`
    /// unless the critic has a trunk of its own.
    ///
    /// # Errors
    /// Errors of the model.
    pub fn values(&self, policy: &Policy, batch: &Batch) -> Result<Vec<f64>, TrainError> {
        let budget = self.experiment.train.micro_batch_tokens;
        let model = self.trunk.as_ref().map_or(policy, |trunk| &trunk.model);
        batch.over_packs(budget, |pack| self.head.values(&model.states(pack)?))
    }

    /// Fits the critic to a batch's targets; `before` are its values before fitting.
    ///
    /// # Errors
    /// Errors of the model and the optimiser; a gradient that is not finite.
    pub fn fit(
        &mut self,
        policy: &Policy,
        batch: &Batch,
        before: &[f64],
        step: u64,
    ) -> Result<CriticFigures, TrainError> {
        let mut figures = CriticFigures::default();
        let Some(targets) = &batch.targets else { return Ok(figures) };
        if batch.rows.is_empty() {
            return Ok(figures);
        }
        let (config, train) = (&self.experiment.critic, &self.experiment.train);
        let (targets, weights) = per_token(batch, targets);
        figures.explained_variance = explained_variance(before, &targets, &weights);
        let all: Vec<usize> = (0..batch.rows.len()).collect();
        let packs = batch.pack(&all, train.micro_batch_tokens)?;
        // With a single pack its states are kept for all epochs, within the same memory bound.
        let kept = match (&self.trunk, &packs[..]) {
            (None, [only]) => Some(policy.states(only)?),
            _ => None,
        };
        let (targets, weights) = (&targets, &weights);
        let fit = Fit { batch, before, targets, weights, clip: config.clip };
        for epoch in 0..config.epochs {
            self.zero_grad();
            for pack in &packs {
                let loss = self.differentiate(policy, kept.as_ref(), pack, &fit)?;
                if epoch == 0 {
                    figures.loss += loss;
                }
            }
            figures.grad_norm += self.update(step)? / config.epochs as f64;
        }
        Ok(figures)
    }

    fn zero_grad(&self) {
        self.head.parameters().zero_grad();
        if let Some(trunk) = &self.trunk {
            trunk.model.trained().zero_grad();
        }
    }

    /// Adds a pack's gradient and returns its loss; `kept` are the policy's states, if known.
    fn differentiate(
        &self,
        policy: &Policy,
        kept: Option<&Tensor>,
        pack: &Pack,
        fit: &Fit<'_>,
    ) -> Result<f64, TrainError> {
        let mut sum = 0.0;
        let mut slope = |predicted: &[f64]| {
            let (loss, slope) = fit.loss(pack, predicted);
            sum += loss;
            slope
        };
        let head = &self.head;
        match (&self.trunk, kept) {
            (Some(trunk), _) => trunk.model.states_forward_backward(pack, &mut |states| {
                head.forward_backward_through(states, &mut slope)
            })?,
            (None, Some(states)) => head.forward_backward(states, &mut slope)?,
            (None, None) => head.forward_backward(&policy.states(pack)?, &mut slope)?,
        }
        Ok(sum)
    }

    /// Clips the gradient of head and trunk together, updates both, and returns the norm before
    /// clipping.
    fn update(&mut self, step: u64) -> Result<f64, TrainError> {
        let clip = self.experiment.train.grad_clip;
        let mut parts = vec![self.head.parameters()];
        parts.extend(self.trunk.iter().map(|trunk| trunk.model.trained()));
        let norm = clip_grad_norms(&parts, (clip > 0.0).then_some(clip))?;
        if !norm.is_finite() {
            let what = format!(
                "the critic's gradient norm is {norm}; lower critic.learning_rate or \
                 critic.trunk_learning_rate, or use another dtype; the latest checkpoint is valid"
            );
            return Err(TrainError::Step { step, what });
        }
        self.optimizer.step(self.head.parameters(), 1.0)?;
        if let Some(Trunk { model, optimizer }) = &mut self.trunk {
            optimizer.step(model.trained(), 1.0)?;
        }
        Ok(norm)
    }
}

/// Target and weight of each token, flat; the weights add up to 1. For call-level targets only the
/// first token of each call has a weight.
fn per_token(batch: &Batch, targets: &Targets) -> (Vec<f64>, Vec<f64>) {
    let tokens = batch.shape.tokens();
    match targets {
        Targets::Tokens(all) => (all.clone(), vec![1.0 / tokens.max(1) as f64; tokens]),
        Targets::Calls(calls) => {
            let (mut flat, mut weights) = (vec![0.0; tokens], vec![0.0; tokens]);
            for (range, &target) in batch.shape.ranges().zip(calls) {
                flat[range.start] = target;
                weights[range.start] = 1.0 / calls.len() as f64;
            }
            (flat, weights)
        }
    }
}

/// `1 − Var(target − value) / Var(target)` over tokens with non-zero weight; 0 for constant
/// targets.
fn explained_variance(values: &[f64], targets: &[f64], weights: &[f64]) -> f64 {
    let variance = |of: &dyn Fn(usize) -> f64| {
        let mean: f64 = weights.iter().enumerate().map(|(t, w)| w * of(t)).sum();
        weights.iter().enumerate().map(|(t, w)| w * (of(t) - mean).powi(2)).sum::<f64>()
    };
    let of_targets = variance(&|t| targets[t]);
    if of_targets < 1e-12 {
        return 0.0;
    }
    1.0 - variance(&|t| targets[t] - values[t]) / of_targets
}

#[cfg(test)]
mod tests {
    use super::explained_variance;

    #[test]
    fn explained_variance_of_known_values() {
        let weights = [0.25; 4];
        let targets = [0.0, 1.0, 0.0, 1.0];
        assert_eq!(explained_variance(&targets, &targets, &weights), 1.0);
        assert_eq!(explained_variance(&[0.5; 4], &targets, &weights), 0.0);
        assert!(explained_variance(&[1.0, 0.0, 1.0, 0.0], &targets, &weights) < 0.0);
        assert_eq!(explained_variance(&[0.3; 4], &[1.0; 4], &weights), 0.0);
        // Tokens with weight 0 are ignored.
        assert_eq!(explained_variance(&[0.0, 9.0], &[0.0, 1.0], &[1.0, 0.0]), 0.0);
    }
}
