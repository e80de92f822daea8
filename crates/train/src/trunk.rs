//! The critic's own trunk: a second model, from whose hidden states the value head predicts.
//!
//! It starts as a copy of the policy and is trained with the value head, at a learning rate of its
//! own. With adapters only these are copied: the frozen base is shared.

use leyden_lm::LmError;
use leyden_lm::optim::{Optimizer, OptimizerConfig};
use leyden_lm::policy::Policy;
use tch::no_grad;

use crate::config::CriticConfig;
use crate::error::TrainError;

/// A trunk and its optimiser.
pub struct Trunk {
    pub model: Policy,
    pub optimizer: Optimizer,
}

impl Trunk {
    /// A trunk with the current weights of `policy`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(config: &CriticConfig, policy: &Policy) -> Result<Self, TrainError> {
        let model = policy.trunk()?;
        let options = OptimizerConfig {
            lr: config.trunk_learning_rate,
            weight_decay: 0.0,
            ..OptimizerConfig::default()
        };
        let optimizer = Optimizer::new(model.trained(), options)?;
        Ok(Self { model, optimizer })
    }

    /// Sets the weights to those of `policy`.
    ///
    /// # Errors
    /// A policy of another shape.
    pub fn copy_from(&self, policy: &Policy) -> Result<(), LmError> {
        for (name, weight) in self.model.trained().iter() {
            let new = policy.trained().get(name)?;
            no_grad(|| weight.detach().f_copy_(new))?;
        }
        Ok(())
    }
}
