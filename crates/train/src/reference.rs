//! The reference model of a KL penalty: the policy as it was before the first step.
//!
//! With adapters it is the model without them and costs nothing; otherwise a frozen copy in
//! the compute type stands beside the policy. It never enters a checkpoint: a resumed run
//! makes it again from the same source.

use leyden_lm::model::Parameters;
use leyden_lm::policy::{Policy, PolicyOptions};
use leyden_rl::kl::KlController;

use crate::batch::Batch;
use crate::config::Experiment;
use crate::error::TrainError;

/// What a KL penalty needs: whom to stay near, and how much it counts.
pub struct Reference<'a> {
    experiment: &'a Experiment,
    /// Absent where the policy has adapters.
    frozen: Option<Policy>,
    pub controller: KlController,
}

impl<'a> Reference<'a> {
    /// Of a policy whose weights are those to stay near.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn new(experiment: &'a Experiment, policy: &Policy) -> Result<Self, TrainError> {
        let controller = experiment.algorithm.kl.controller();
        if policy.lora().is_some() {
            return Ok(Self { experiment, frozen: None, controller });
        }
        let PolicyOptions { compute, .. } = *policy.options();
        let copied = policy.base().iter();
        let tensors = copied.map(|(name, t)| (name.to_owned(), t.detach().copy())).collect();
        let parameters = Parameters::new(tensors, compute, policy.device(), false)?;
        let options = PolicyOptions { compute, ..*policy.options() };
        let frozen = Policy::new(policy.config().clone(), parameters, options);
        Ok(Self { experiment, frozen: Some(frozen), controller })
    }

    /// Log-probabilities of a batch's tokens under the reference model, flat. `policy` is the
    /// one that is trained: without its adapters it is the reference.
    ///
    /// # Errors
    /// The model's.
    pub fn logp(&self, policy: &Policy, batch: &Batch) -> Result<Vec<f64>, TrainError> {
        let temperature = self.experiment.rollout.temperature;
        batch.over_packs(self.experiment.train.micro_batch_tokens, |pack| {
            let evaluated = match &self.frozen {
                Some(frozen) => frozen.evaluate(pack, temperature)?,
                None => policy.evaluate_base(pack, temperature)?,
            };
            Ok(evaluated.logp)
        })
    }

    /// The penalty of each token that is taken off the rewards of a batch, where the algorithm
    /// has it there. The policy's side of the estimate are the probabilities with which the
    /// tokens were drawn.
    pub fn penalties(&self, batch: &Batch, logp_ref: &[f64]) -> Option<Vec<f64>> {
        let kl = &self.experiment.algorithm.kl;
        let beta = self.controller.coefficient;
        kl.is_in_reward().then(|| kl.penalties(beta, &batch.logp_sampler, logp_ref, &batch.shape))
    }

    /// How far the policy that acted was from the reference, in nats per token, and the factor
    /// of the penalty in this step; an adaptive factor follows the distance over the step's
    /// `rollouts`.
    pub fn follow(&mut self, batch: &Batch, logp_ref: &[f64], rollouts: usize) -> (f64, f64) {
        let kl = &self.experiment.algorithm.kl;
        let estimates =
            batch.logp_sampler.iter().zip(logp_ref).map(|(p, r)| kl.estimator.estimate(*p, *r).0);
        let mean = estimates.sum::<f64>() / logp_ref.len().max(1) as f64;
        let coefficient = self.controller.coefficient;
        if !logp_ref.is_empty() {
            self.controller.update(kl, mean, rollouts);
        }
        (mean, coefficient)
    }
}
