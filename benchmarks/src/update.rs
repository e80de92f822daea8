//! One policy update on a batch of rollouts, as in the trainer.
//!
//! Merged prefixes, PPO with the paper's clip bounds, token mean, gradient clipping, AdamW. The
//! first update's log-probabilities serve as the old ones of all later updates, so from the
//! second on the ratio differs from 1 and the loss reflects the previous update.

use anyhow::{Result, bail};
use leyden_lm::optim::{Optimizer, clip_grad_norm};
use leyden_lm::policy::forest::Pack;
use leyden_lm::policy::{Cotangent, Evaluated, Policy};
use leyden_rl::Rows;
use leyden_rl::aggregate::Aggregation;
use leyden_rl::loss::{LossConfig, LossInput};

use crate::work::Batch;

/// Learning rate; the peers use the same.
pub const LEARNING_RATE: f64 = 1e-6;
/// Maximum gradient norm; the peers use the same.
pub const GRADIENT_CLIP: f64 = 1.0;

/// Metrics of an update.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub loss: f64,
    /// Mean log-probability of the action tokens before the update.
    pub logp_mean: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Computed tokens, after merging prefixes.
    pub unique_tokens: usize,
    /// Log-probabilities of all action tokens before the update, flat over the batch's rows.
    pub logp: Vec<f64>,
}

/// A policy, its optimiser, and the batch that it is updated on.
pub struct Updater<'a> {
    pub policy: &'a Policy,
    pub optimizer: Optimizer,
    pub batch: &'a Batch,
    /// Maximum number of merged tokens in a micro-batch.
    pub budget: usize,
    loss: LossConfig,
    /// Weight of each action token in the loss.
    weights: Vec<f64>,
    logp_old: Option<Vec<f64>>,
}

impl<'a> Updater<'a> {
    pub fn new(policy: &'a Policy, optimizer: Optimizer, batch: &'a Batch, budget: usize) -> Self {
        let loss = LossConfig::default();
        let weights = loss.token_weights(Aggregation::TokenMean, None, &batch.shape);
        Self { policy, optimizer, batch, budget, loss, weights, logp_old: None }
    }

    /// Forward and backward pass of one micro-batch, discarding its gradient, so that kernels are
    /// selected and memory is allocated before timing starts.
    ///
    /// # Errors
    /// As [`Updater::update`].
    pub fn warm_up(&mut self) -> Result<()> {
        if let Some(pack) = self.packs()?.first() {
            let mut logp = vec![0.0; self.batch.shape.tokens()];
            self.micro_batch(pack, &mut logp)?;
        }
        self.policy.trained().zero_grad();
        Ok(())
    }

    /// Packs the batch, computes loss and gradient, clips the gradient and steps the optimiser.
    ///
    /// # Errors
    /// Rows that cannot be packed, errors of the model, a gradient that is not finite.
    pub fn update(&mut self) -> Result<Update> {
        self.policy.trained().zero_grad();
        let packs = self.packs()?;
        let mut logp = vec![0.0; self.batch.shape.tokens()];
        let mut loss = 0.0;
        for pack in &packs {
            loss += self.micro_batch(pack, &mut logp)?;
        }
        let grad_norm = clip_grad_norm(self.policy.trained(), Some(GRADIENT_CLIP))?;
        if !(grad_norm.is_finite() && loss.is_finite()) {
            bail!("loss {loss} or gradient norm {grad_norm} is not finite");
        }
        self.optimizer.step(self.policy.trained(), 1.0)?;
        if self.logp_old.is_none() {
            self.logp_old = Some(logp.clone());
        }
        Ok(Update {
            loss,
            logp_mean: logp.iter().sum::<f64>() / logp.len() as f64,
            grad_norm,
            unique_tokens: packs.iter().map(Pack::len).sum(),
            logp,
        })
    }

    fn packs(&self) -> Result<Vec<Pack>> {
        self.batch.packs(self.budget)
    }

    /// Accumulates a pack's gradient, writes its log-probabilities to `logp`, returns its loss.
    fn micro_batch(&self, pack: &Pack, logp: &mut [f64]) -> Result<f64> {
        let shape = &self.batch.shape;
        let ranges: Vec<_> = pack.rows.iter().map(|row| shape.range(row.row)).collect();
        let rows = Rows::dense(&ranges.iter().map(|range| range.len()).collect::<Vec<_>>());
        let select = |flat: &[f64]| {
            ranges.iter().flat_map(|r| &flat[r.clone()]).copied().collect::<Vec<_>>()
        };
        let (advantages, weights) = (select(&self.batch.advantages), select(&self.weights));
        let mut total = 0.0;
        self.policy.forward_backward(pack, 1.0, &mut |evaluated: &Evaluated| {
            let by_row = pack.gather(&evaluated.logp);
            for (range, values) in ranges.iter().zip(&by_row) {
                logp[range.clone()].copy_from_slice(values);
            }
            let logp_new = by_row.concat();
            let logp_old =
                self.logp_old.as_ref().map_or_else(|| logp_new.clone(), |all| select(all));
            let loss = self.loss.loss(&LossInput {
                rows: &rows,
                logp_new: &logp_new,
                logp_old: &logp_old,
                advantages: &advantages,
                weights: &weights,
            });
            total = loss.loss;
            let by_row: Vec<Vec<f64>> = rows.ranges().map(|r| loss.grad[r].to_vec()).collect();
            Cotangent { logp: pack.scatter(&by_row), entropy: None }
        })?;
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use leyden_lm::optim::Optimizer;

    use super::Updater;
    use crate::tiny;
    use crate::work::Rollouts;

    #[test]
    fn micro_batches_change_nothing_and_updates_lower_the_loss() {
        // Idle workers would spin, and tests share the cores.
        tch::set_num_threads(1);
        let batch = Rollouts::make(2, 3, tiny::VOCABULARY, 5).batch().unwrap();
        let run = |budget: usize| {
            let policy = tiny::policy().unwrap();
            let config = tiny::optimizer(1e-3);
            let optimizer = Optimizer::new(policy.trained(), config).unwrap();
            let mut updater = Updater::new(&policy, optimizer, &batch, budget);
            updater.warm_up().unwrap();
            [updater.update().unwrap(), updater.update().unwrap()]
        };
        let (whole, parts) = (run(usize::MAX), run(300));
        for (whole, parts) in whole.iter().zip(&parts) {
            assert!((whole.loss - parts.loss).abs() < 1e-4, "{} {}", whole.loss, parts.loss);
            assert!((whole.logp_mean - parts.logp_mean).abs() < 1e-4);
            let scale = whole.grad_norm;
            assert!((scale - parts.grad_norm).abs() < 1e-3 * scale);
        }
        assert!(whole[1].loss < whole[0].loss, "{whole:?}");
    }
}
