//! The critic's keys.

use serde::{Deserialize, Serialize};

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
    /// [`super::Experiment::critic_warmup`].
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
