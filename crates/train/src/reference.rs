//! The reference model of a KL penalty: the policy before the first step.
//!
//! With adapters it is the base model and needs no extra memory; otherwise it is a frozen copy in
//! the compute type. It is not part of a checkpoint: a resumed run recreates it from the same
//! source.

use leyden_lm::model::Parameters;
use leyden_lm::policy::{Policy, PolicyOptions};
use leyden_rl::kl::KlController;

use crate::batch::Batch;
use crate::config::Experiment;
use crate::error::TrainError;

/// The reference model and the factor of a KL penalty.
pub struct Reference<'a> {
    experiment: &'a Experiment,
    /// Absent if the policy has adapters.
    frozen: Option<Policy>,
    pub controller: KlController,
}

impl<'a> Reference<'a> {
    /// A reference with the current weights of `policy`.
    ///
    /// # Errors
    /// Out of memory for the copy.
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
    /// trained policy, which without its adapters is the reference.
    ///
    /// # Errors
    /// Errors of the model.
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

    /// The penalty of each token to subtract from the rewards of a batch, if the algorithm places
    /// it there. The estimate uses the sampler's log-probabilities for the policy.
    pub fn penalties(&self, batch: &Batch, logp_ref: &[f64]) -> Option<Vec<f64>> {
        let kl = &self.experiment.algorithm.kl;
        let beta = self.controller.coefficient;
        kl.is_in_reward().then(|| kl.penalties(beta, &batch.logp_sampler, logp_ref, &batch.shape))
    }

    /// The KL divergence of the sampling policy from the reference in nats per token, and the
    /// penalty factor of this step. Updates an adaptive factor with the divergence over the step's
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
