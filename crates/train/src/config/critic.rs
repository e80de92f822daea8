//! The critic's keys.

use serde::{Deserialize, Serialize};

use super::{Experiment, KeyError, Objective};

/// The model whose hidden states the critic's value head reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CriticTrunk {
    /// The policy, which the critic does not change.
    #[default]
    Shared,
    /// A copy of the policy's initial weights, trained with the value head.
    Own,
}

/// The critic, for algorithms that need one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CriticConfig {
    /// Hidden units of the value head; 0 is the model's width.
    pub width: usize,
    /// Learning rate of the value head.
    pub learning_rate: f64,
    /// Passes over the rollouts of a step.
    pub epochs: usize,
    /// Clip range of predictions around their old values.
    pub clip: f64,
    pub trunk: CriticTrunk,
    /// Learning rate of a trunk of its own.
    pub trunk_learning_rate: f64,
    /// Number of first steps in which only the critic is fitted; see
    /// [`Experiment::critic_warmup`].
    pub warmup: u64,
}

impl Default for CriticConfig {
    fn default() -> Self {
        Self {
            width: 0,
            learning_rate: 1e-3,
            epochs: 4,
            clip: 0.5,
            trunk: CriticTrunk::default(),
            // The learning rate of verl's critic.
            trunk_learning_rate: 1e-5,
            warmup: 0,
        }
    }
}

impl Experiment {
    /// Whether a critic is trained with the policy.
    pub fn has_critic(&self) -> bool {
        self.train.objective == Objective::Reinforcement && self.algorithm.needs_critic()
    }

    /// Whether a critic with a trunk of its own is trained.
    pub fn has_own_trunk(&self) -> bool {
        self.has_critic() && self.critic.trunk == CriticTrunk::Own
    }

    /// Number of first steps of the run in which the critic is fitted and the policy is not
    /// updated. The policy's learning rate begins after them and ends at the last step.
    pub fn critic_warmup(&self) -> u64 {
        if self.has_critic() { self.critic.warmup } else { 0 }
    }

    /// Rejects keys of a critic that the algorithm does not have, and a warm-up longer than the run.
    pub(super) fn check_critic(&self) -> Result<(), KeyError> {
        let CriticConfig { trunk, warmup, .. } = self.critic;
        if !self.algorithm.needs_critic() {
            let what = "this algorithm has no critic; use algorithm.advantage gae, or \
                 algorithm.credit learned_value or bilevel_gae";
            if trunk == CriticTrunk::Own {
                return Err(KeyError::new("critic.trunk", what));
            }
            if warmup > 0 {
                return Err(KeyError::new("critic.warmup", what));
            }
        }
        let steps = self.train.steps;
        if self.critic_warmup() > steps {
            let what = format!("is {warmup}, but must be at most train.steps ({steps})");
            return Err(KeyError::new("critic.warmup", what));
        }
        Ok(())
    }
}
