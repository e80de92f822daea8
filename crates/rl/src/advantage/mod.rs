//! Advantages: how much better than expected each token's call was.
//!
//! One file per estimator, each a function of its configuration and an [`AdvantageInputs`]. Most
//! compare the rows of a group with each other ([`grouping`]) and give all tokens of a row the same
//! advantage; others work at token level. Tokens outside the mask get 0.
//!
//! Libraries differ silently in their treatment of groups of one, the epsilon and the standard
//! deviation. Here a group of one gets 0 and is counted; `compat = "verl"` follows verl's
//! conventions instead.
//!
//! The header of each estimator's file says which comparison group it needs. Estimators whose paper
//! defines a sample as a whole rollout compare rollouts by default ([`GroupOver`]); GRPO compares
//! rows, as LightningRL does.
//!
//! A new estimator is a file that implements `Estimator` for its configuration, its `mod` line
//! here, and its row in the registry below.

pub(crate) mod batch;
pub mod gae;
pub mod grouping;
pub mod grpo;
pub mod max_rl;
pub mod none;
pub mod opo;
pub mod pass_k;
pub mod reinforce_plus_plus;
pub mod reinforce_plus_plus_baseline;
pub mod rloo;
pub mod whiten;
mod whitening;

use crate::error::AdvantageError;
use crate::needs::Need;
use crate::registry::registry;

use batch::Estimator;

pub use batch::{AdvantageInputs, Advantages, Compat, GroupCounters, GroupOver};

/// The kind of credit that an estimator accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Returns of calls.
    Returns,
    /// Returns, or credit that is already an advantage.
    Anything,
}

registry! {
    /// An estimator, by `name`.
    pub enum AdvantageConfig: Estimator, Accepts,
        "group_over = rows (default of grpo and reinforce_plus_plus_baseline) or rollouts (default \
         of rloo, opo, max_rl, pass_k): the unit that is compared within a task; compat = verl, …"
    {
        "grpo", Grpo(grpo::GrpoConfig), Returns, [Group];
        "rloo", Rloo(rloo::RlooConfig), Returns, [Group];
        "opo", Opo(opo::OpoConfig), Returns, [Group];
        "max_rl", MaxRl(max_rl::MaxRlConfig), Returns, [Group];
        "pass_k", PassK(pass_k::PassKConfig), Returns, [Group];
        "reinforce_plus_plus",
            ReinforcePlusPlus(reinforce_plus_plus::ReinforcePlusPlusConfig), Returns, [];
        "reinforce_plus_plus_baseline",
            ReinforcePlusPlusBaseline(reinforce_plus_plus_baseline::ReinforcePlusPlusBaselineConfig),
            Returns, [Group];
        "gae", Gae(gae::GaeConfig), Returns, [Critic];
        "whiten", Whiten(whiten::WhitenConfig), Anything, [];
        "none", None(none::NoneConfig), Anything, [];
    }
}

impl AdvantageConfig {
    /// The advantages of a batch.
    ///
    /// # Errors
    /// A score that is not finite, or a batch that the estimator does not support.
    ///
    /// # Panics
    /// If a slice of the batch does not fit its rows.
    pub fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        self.rule().advantages(batch)
    }

    /// Whether it compares the entries of a group, and so needs two or more of them.
    pub fn compares_groups(&self) -> bool {
        self.needs().contains(&Need::Group)
    }

    /// Whether it accepts credit that is already an advantage, without comparing it again.
    pub fn takes_advantages(&self) -> bool {
        self.special() == Accepts::Anything
    }

    /// Whether a group of one gets a non-zero advantage.
    pub(crate) fn takes_groups_of_one(&self) -> bool {
        !self.compares_groups() || self.rule().takes_groups_of_one()
    }
}
