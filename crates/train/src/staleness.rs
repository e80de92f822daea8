//! Training on rollouts that earlier weights sampled (`train.staleness = k`).
//!
//! An asynchronous trainer samples the rollouts of coming steps while it updates the weights, so a
//! step's rollouts come from weights that are some updates behind. Here this is done without
//! concurrency, so that a seed fixes every byte: step t samples with version max(0, t − 1 − k), the
//! weights after that many updates, and trains version t − 1. With k = 0 both are the same.
//! [`Call::policy_version`](leyden_core::Call::policy_version) says which version sampled a call.
//! Evaluations use the current weights.
//!
//! The values of the trained parameters of the latest k versions are kept, in memory and in
//! checkpoints: k copies of the model in its `master_dtype`, or of the adapters. The engine gets the
//! version that it needs. Rollouts could be sampled k steps ahead instead and be stored. That would
//! save the copies, but a run that ends would have sampled for steps that it does not have, and one
//! that is extended later would have to make up for them. With copies, everything else about a step
//! is as it is without staleness: tasks, seeds, dynamic sampling, completions, files.
//!
//! # The three policies of an update
//!
//! | policy | weights | its log-probabilities |
//! |---|---|---|
//! | sampler (behaviour) | version t − 1 − k, or older with [`replay`](crate::replay) | recorded by the engine |
//! | old (proximal) | version t − 1, at the beginning of the step | recomputed by the trainer |
//! | new | the differentiated ones | computed in every update |
//!
//! The ratio of every loss, which PPO clips, is new to old: how far the step itself has moved. It
//! is 1 in the first update, whoever sampled, so no clip bounds what stale samples do. The weight
//! of [`algorithm.correction`](leyden_rl::correction) is old to sampler. Their product is new to
//! sampler, the importance ratio of the gradient: the decoupled objective of Hilton et al. 2021
//! (arXiv 2110.00641), with a bounded weight as in truncated importance sampling. Hence a correction
//! is required. Its figures and those of the mismatch of trainer and sampler are measured as
//! always; here they contain the updates in between.
//!
//! Only the policy loss is corrected. An entropy bonus and a KL term are means over the sampler's
//! tokens, a KL penalty in the reward is that of the sampler, and a critic is fitted to the
//! sampler's returns.

use std::collections::VecDeque;

use leyden_lm::LmError;
use leyden_lm::formats::NamedTensors;
use leyden_lm::policy::Policy;
use tch::{Tensor, no_grad};

/// Prefix of the names of earlier values in checkpoints, before their version.
const PREFIX: &str = "earlier.";

/// The version that samples the rollouts of a step which trains version `current`.
pub fn sampling_version(current: u64, staleness: u64) -> u64 {
    current.saturating_sub(staleness)
}

/// The values of the trained parameters of the versions that coming steps sample with.
pub(crate) struct EarlierWeights {
    staleness: u64,
    /// Ascending, without a gap.
    kept: VecDeque<(u64, Tensor)>,
}

impl EarlierWeights {
    pub fn new(staleness: u64) -> Self {
        Self { staleness, kept: VecDeque::new() }
    }

    /// Keeps a copy of the policy's values, version `current`, before they are updated, and forgets
    /// those that no later step needs.
    ///
    /// # Errors
    /// Out of memory for the copy.
    pub fn keep(&mut self, current: u64, policy: &Policy) -> Result<(), LmError> {
        let flat = policy.trained().flat();
        self.advance(current, || {
            let mut copy = flat.f_zeros_like()?;
            no_grad(|| copy.f_copy_(flat))?;
            Ok(copy)
        })
    }

    fn advance(
        &mut self,
        current: u64,
        values: impl FnOnce() -> Result<Tensor, LmError>,
    ) -> Result<(), LmError> {
        if self.staleness > 0 {
            let needed = sampling_version(current + 1, self.staleness);
            self.kept.retain(|(version, _)| *version >= needed);
            self.kept.push_back((current, values()?));
        }
        Ok(())
    }

    /// The version that samples the rollouts of a step which trains version `current`, and its
    /// values; without values it is the current one.
    pub fn sampling(&self, current: u64) -> (u64, Option<&Tensor>) {
        let wanted = sampling_version(current, self.staleness);
        let found = self.kept.iter().find(|(version, _)| *version == wanted);
        found.map_or((current, None), |(version, values)| (*version, Some(values)))
    }

    /// The kept values by their names in a checkpoint.
    pub fn state(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.kept.iter().map(|(version, values)| (name(*version), values.shallow_clone()))
    }

    /// Restores the values that steps after version `current` need, from the tensors of a
    /// checkpoint.
    ///
    /// # Errors
    /// A version that is not among them.
    pub fn restore(&mut self, current: u64, earlier: &NamedTensors) -> Result<(), LmError> {
        let versions = sampling_version(current, self.staleness)..current;
        let find = |version: u64| match earlier.iter().find(|(other, _)| *other == name(version)) {
            Some((_, values)) => Ok((version, values.shallow_clone())),
            None => Err(LmError::Invalid(format!(
                "it has no weights of step {version}, and train.staleness is {}",
                self.staleness
            ))),
        };
        self.kept = versions.map(find).collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// The name of a version in a checkpoint.
fn name(version: u64) -> String {
    format!("{PREFIX}{version:06}")
}

/// Removes the earlier values from the tensors of a checkpoint and returns them.
pub(crate) fn split_off(tensors: &mut NamedTensors) -> NamedTensors {
    let (earlier, others) =
        std::mem::take(tensors).into_iter().partition(|(name, _)| name.starts_with(PREFIX));
    *tensors = others;
    earlier
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn the_first_steps_are_sampled_with_the_initial_weights() {
        let versions = |staleness| -> Vec<u64> {
            (1..=6).map(|step| sampling_version(step - 1, staleness)).collect()
        };
        assert_eq!(versions(0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(versions(1), [0, 0, 1, 2, 3, 4]);
        assert_eq!(versions(3), [0, 0, 0, 0, 1, 2]);
        assert_eq!(versions(8), [0; 6]);
    }

    /// Every step finds its version, also after resuming from the checkpoint of any earlier step.
    #[test]
    fn every_version_is_kept_as_long_as_it_is_needed() {
        let values = |version: u64| Tensor::full([1], version as f64, (Kind::Float, Device::Cpu));
        for staleness in 0..=8 {
            let mut earlier = EarlierWeights::new(staleness);
            for current in 0..20 {
                let (version, found) = earlier.sampling(current);
                assert_eq!(version, sampling_version(current, staleness));
                assert_eq!(found.is_none(), version == current);
                if let Some(found) = found {
                    assert_eq!(found.double_value(&[0]), version as f64);
                }
                earlier.advance(current, || Ok(values(current))).unwrap();
                assert!(earlier.kept.len() as u64 <= staleness);
                let mut tensors: NamedTensors = earlier.state().collect();
                tensors.push(("parameters".to_owned(), values(current + 1)));
                let split = split_off(&mut tensors);
                assert_eq!(tensors.len(), 1);
                earlier = EarlierWeights::new(staleness);
                earlier.restore(current + 1, &split).unwrap();
            }
        }
        let mut none = EarlierWeights::new(2);
        let error = none.restore(5, &NamedTensors::new()).unwrap_err().to_string();
        assert!(error.contains("no weights of step 3") && error.contains("is 2"), "{error}");
    }
}
