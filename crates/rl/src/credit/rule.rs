//! The trait of credit assignment rules and their output.

use crate::credit::trajectory::Trajectory;
use crate::error::{ConfigError, CreditError};

/// A credit assignment rule; implemented by its configuration.
pub(crate) trait CreditRule {
    /// Credit of every call of every trajectory.
    ///
    /// # Errors
    /// If a trajectory lacks an input of the rule, or a number is not finite.
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError>;

    /// Whether the rule leaves a call out: it is then not trained, earns nothing and is not
    /// compared. None by default.
    fn leaves_out(&self, _trajectory: &Trajectory, _call: usize) -> bool {
        false
    }

    /// # Errors
    /// The first invalid value.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The rule that verl calls `name`. None by default, since verl assigns no credit to calls.
    fn of_verl(_name: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// Critic targets.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// One per call, at the last token of its prompt.
    Calls(Vec<f64>),
    /// One per token, flat over the rows.
    Tokens(Vec<f64>),
}

/// Output of a rule: one number per call of every trajectory, flat, and optionally token-level
/// advantages and critic targets. Numbers of untrained calls and of those that the rule leaves out
/// are ignored.
#[derive(Default)]
pub(crate) struct CallCredit {
    pub per_call: Vec<f64>,
    pub per_token: Option<Vec<f64>>,
    /// For [`Targets::Calls`]: one for every call, trained or not.
    pub targets: Option<Targets>,
}

impl From<Vec<f64>> for CallCredit {
    fn from(per_call: Vec<f64>) -> Self {
        Self { per_call, ..Self::default() }
    }
}
