//! The critic of a run, where its algorithm has one.
//!
//! It values the states of a step's rollouts before credit is assigned and learns from what
//! credit says it should have said, before the policy moves: a value and its target are of the
//! same policy. States are computed pack by pack and kept only where a step has a single pack,
//! so its memory is bounded as the policy's.

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

/// What a critic said before it learned, and how it learned.
#[derive(Default)]
pub(crate) struct CriticFigures {
    /// Of the first pass, in which it says what it said before.
    pub loss: f64,
    /// Share of the targets' variance that it knew of; below 0 it was worse than their mean.
    pub explained_variance: f64,
}

impl<'a> Critic<'a> {
    /// # Errors
    /// No memory.
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
    /// The model's.
    pub fn values(&self, policy: &Policy, batch: &Batch) -> Result<Vec<f64>, TrainError> {
        let budget = self.experiment.train.micro_batch_tokens;
        batch.over_packs(budget, |pack| self.head.values(&policy.states(pack)?))
    }

    /// Fits the critic to what it should have said of a batch that it valued at `before`.
    ///
    /// # Errors
    /// The model's and the optimiser's.
    pub(crate) fn fit(
        &mut self,
        policy: &Policy,
        batch: &Batch,
        before: &[f64],
    ) -> Result<CriticFigures, TrainError> {
        let mut figures = CriticFigures::default();
        let Some(targets) = &batch.targets else { return Ok(figures) };
        let (config, train) = (&self.experiment.critic, &self.experiment.train);
        let (targets, weights) = per_token(batch, targets);
        figures.explained_variance = explained_variance(before, &targets, &weights);
        let all: Vec<usize> = (0..batch.rows.len()).collect();
        let packs = batch.pack(&all, train.micro_batch_tokens)?;
        // The states of one pack are kept for all epochs: memory is bounded by a pack's anyway.
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
                self.head.forward_backward(&states, &mut |said| {
                    let ValueLoss { loss, grad, .. } = value::loss(
                        &ValueConfig { clip: config.clip },
                        &ValueInput {
                            rows: &rows,
                            values_new: &pack.gather(said).concat(),
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

/// Target and weight of each token, flat; the weights add up to 1. A critic of calls speaks at
/// the first token of each.
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

/// `1 − Var(target − value) / Var(target)` where the weights are not 0; 0 of constant targets.
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
    fn what_is_explained_is_what_a_value_takes_off_the_spread() {
        let weights = [0.25; 4];
        let targets = [0.0, 1.0, 0.0, 1.0];
        assert_eq!(explained_variance(&targets, &targets, &weights), 1.0);
        assert_eq!(explained_variance(&[0.5; 4], &targets, &weights), 0.0);
        assert!(explained_variance(&[1.0, 0.0, 1.0, 0.0], &targets, &weights) < 0.0);
        assert_eq!(explained_variance(&[0.3; 4], &[1.0; 4], &weights), 0.0);
        // Tokens of no weight do not count.
        assert_eq!(explained_variance(&[0.0, 9.0], &[0.0, 1.0], &[1.0, 0.0]), 0.0);
    }
}
