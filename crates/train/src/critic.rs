//! The critic, for algorithms that need one.
//!
//! It computes the values of a step's states before credit assignment and is fitted to the targets
//! from credit before the policy is updated, so a value and its target belong to the same policy.
//! States are computed per pack and kept only if a step has a single pack, so memory is bounded
//! like the policy's.

use leyden_core::SeedTree;
use leyden_lm::optim::{Optimizer, OptimizerConfig, clip_grad_norm};
use leyden_lm::policy::{Policy, ValueHead};
use leyden_rl::credit::Targets;
use leyden_rl::loss::value::{self, ValueConfig, ValueInput, ValueLoss};

use crate::batch::Batch;
use crate::config::Experiment;
use crate::error::TrainError;

/// A value head and its optimiser.
pub struct Critic<'a> {
    experiment: &'a Experiment,
    pub head: ValueHead,
    pub optimizer: Optimizer,
}

/// Metrics of fitting a critic.
#[derive(Default)]
pub(crate) struct CriticFigures {
    /// Loss of the first pass, before any update.
    pub loss: f64,
    /// Share of the targets' variance explained before fitting; negative if worse than their mean.
    pub explained_variance: f64,
}

impl<'a> Critic<'a> {
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
        Ok(Self { experiment, head, optimizer })
    }

    /// The value of the state before each token of a batch, flat; states are those of `policy`.
    ///
    /// # Errors
    /// Errors of the model.
    pub fn values(&self, policy: &Policy, batch: &Batch) -> Result<Vec<f64>, TrainError> {
        let budget = self.experiment.train.micro_batch_tokens;
        batch.over_packs(budget, |pack| self.head.values(&policy.states(pack)?))
    }

    /// Fits the critic to a batch's targets; `before` are its values before fitting.
    ///
    /// # Errors
    /// Errors of the model and the optimiser.
    pub(crate) fn fit(
        &mut self,
        policy: &Policy,
        batch: &Batch,
        before: &[f64],
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
        let kept = match &packs[..] {
            [only] => Some(policy.states(only)?),
            _ => None,
        };
        for epoch in 0..config.epochs {
            self.head.parameters().zero_grad();
            for pack in &packs {
                let rows = batch.shape_of(pack);
                let (old, returns, weights) = (
                    batch.select(before, pack),
                    batch.select(&targets, pack),
                    batch.select(&weights, pack),
                );
                let states = match &kept {
                    Some(states) => states.shallow_clone(),
                    None => policy.states(pack)?,
                };
                self.head.forward_backward(&states, &mut |predicted| {
                    let ValueLoss { loss, grad, .. } = value::loss(
                        &ValueConfig { clip: config.clip },
                        &ValueInput {
                            rows: &rows,
                            values_new: &pack.gather(predicted).concat(),
                            values_old: &old,
                            returns: &returns,
                            weights: &weights,
                        },
                    );
                    if epoch == 0 {
                        figures.loss += loss;
                    }
                    pack.scatter(&rows.ranges().map(|r| grad[r].to_vec()).collect::<Vec<_>>())
                })?;
            }
            let clip = train.grad_clip;
            clip_grad_norm(self.head.parameters(), (clip > 0.0).then_some(clip))?;
            self.optimizer.step(self.head.parameters(), 1.0)?;
        }
        Ok(figures)
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
