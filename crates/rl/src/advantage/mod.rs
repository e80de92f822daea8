//! Advantages: how much better than expected each token's call turned out.
//!
//! One file per estimator, each a function of its configuration and a [`AdvantageInputs`]. Most
//! compare the rows of a group with each other ([`grouping`]) and give all tokens of a row the
//! same advantage; others work token by token. Tokens outside the mask get 0.
//!
//! Libraries differ silently in what they do with a group of one, with the epsilon and with
//! the standard deviation. Here a group of one has nothing to be compared with and gets 0,
//! which the result counts; `compat = "verl"` takes verl's conventions instead.
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

/// What credit an estimator takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// What calls earned.
    Returns,
    /// The same, or credit that is an advantage already.
    Anything,
}

registry! {
    /// An estimator, by `name`.
    pub enum AdvantageConfig: Estimator, Takes,
        "those that compare within groups take group_over = rows or rollouts, compat = verl, …"
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
    /// A score that is not finite, or a batch that the estimator cannot work with.
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

    /// Whether it takes credit that is an advantage already, as it is.
    pub fn takes_advantages(&self) -> bool {
        self.special() == Takes::Anything
    }

    /// Whether it has something to say about a group of one.
    pub(crate) fn takes_groups_of_one(&self) -> bool {
        !self.compares_groups() || self.rule().takes_groups_of_one()
    }
}
