//! The reference model of a KL penalty: the policy as it was before the first step.
//!
//! With adapters it is the model without them and costs nothing; otherwise a frozen copy in
//! the compute type stands beside the policy. It never enters a checkpoint: a resumed run
//! makes it again from the same source.

use leyden_core::record::StepRecord;
use leyden_lm::forest::Pack;
use leyden_lm::{Parameters, Policy, PolicyOptions};
use leyden_rl::kl::KlController;

use crate::TrainError;
use crate::batch::Batch;
use crate::trainer::Trainer;

/// What a KL penalty needs: whom to stay near, and how much it counts.
pub struct Reference {
    /// Absent where the policy has adapters.
    frozen: Option<Policy>,
    pub controller: KlController,
}

impl Reference {
    /// Of a policy whose weights are those to stay near.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn of(policy: &Policy, controller: KlController) -> Result<Self, TrainError> {
        if policy.lora().is_some() {
            return Ok(Self { frozen: None, controller });
        }
        let PolicyOptions { compute, .. } = *policy.options();
        let copied = policy.base().iter();
        let tensors = copied.map(|(name, t)| (name.to_owned(), t.detach().copy())).collect();
        let parameters = Parameters::new(tensors, compute, policy.device(), false)?;
        let options = PolicyOptions { compute, ..*policy.options() };
        let frozen = Policy::new(policy.config().clone(), parameters, options);
        Ok(Self { frozen: Some(frozen), controller })
    }
}

impl Trainer<'_> {
    /// Log-probabilities of a batch's tokens under the reference model; `None` where the
    /// algorithm has no KL penalty.
    pub(crate) fn reference_logp(&self, batch: &Batch) -> Result<Option<Vec<f64>>, TrainError> {
        let Some(reference) = &self.reference else { return Ok(None) };
        let temperature = self.experiment.rollout.temperature;
        let of_pack = |pack: &Pack| {
            let evaluated = match &reference.frozen {
                Some(frozen) => frozen.evaluate(pack, temperature)?,
                None => self.policy.evaluate_base(pack, temperature)?,
            };
            Ok(evaluated.logp)
        };
        Ok(Some(self.over_batch(batch, of_pack)?))
    }

    /// Takes the KL penalty off the rewards of a batch, where the algorithm has it there, and
    /// assigns credit and advantages. The policy's side of the estimate are the probabilities
    /// with which the tokens were drawn.
    pub(crate) fn assign(
        &mut self,
        batch: &mut Batch,
        logp_ref: Option<&[f64]>,
        step: u64,
    ) -> Result<(), TrainError> {
        let algorithm = &self.experiment.algorithm;
        let penalties = match (&self.reference, logp_ref) {
            (Some(reference), Some(logp_ref)) if algorithm.kl.is_in_reward() => {
                let beta = reference.controller.coefficient;
                Some(algorithm.kl.penalties(beta, &batch.logp_sampler, logp_ref, &batch.shape))
            }
            _ => None,
        };
        batch.assign(algorithm, penalties.as_deref(), step)
    }

    /// Notes how far the policy that acted was from the reference, and lets an adaptive factor
    /// follow it.
    pub(crate) fn follow_reference(
        &mut self,
        batch: &Batch,
        logp_ref: &[f64],
        record: &mut StepRecord,
    ) {
        let kl = &self.experiment.algorithm.kl;
        let estimates =
            batch.logp_sampler.iter().zip(logp_ref).map(|(p, r)| kl.estimator.estimate(*p, *r).0);
        let mean = estimates.sum::<f64>() / logp_ref.len().max(1) as f64;
        let Some(reference) = &mut self.reference else { return };
        record.extra.insert("reference_kl".to_owned(), mean);
        record.extra.insert("kl_coefficient".to_owned(), reference.controller.coefficient);
        if !logp_ref.is_empty() {
            reference.controller.update(kl, mean, record.rollouts);
        }
    }
}
