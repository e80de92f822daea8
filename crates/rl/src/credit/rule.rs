//! What a rule of credit assignment is, and what it says.

use crate::credit::trajectory::Trajectory;
use crate::error::{ConfigError, CreditError};

/// A rule of credit assignment; implemented by its configuration.
pub(crate) trait CreditRule {
    /// Credit of every call of every trajectory.
    ///
    /// # Errors
    /// If a trajectory lacks what the rule needs, or a number is not finite.
    fn assign(&self, trajectories: &[Trajectory]) -> Result<Ruling, CreditError>;

    /// # Errors
    /// The first value that the rule cannot work with.
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The rule that verl calls `name`: verl assigns no credit to calls, so there is none.
    fn of_verl(_name: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// What a critic should have said.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Just before each call: at the last token of its prompt.
    Calls(Vec<f64>),
    /// At each token, flat over the rows.
    Tokens(Vec<f64>),
}

/// What a rule says: one number per call of every trajectory, flat, and further what it has.
/// Numbers of calls that are not trained on are ignored.
#[derive(Default)]
pub(crate) struct Ruling {
    pub per_call: Vec<f64>,
    pub per_token: Option<Vec<f64>>,
    /// Of calls: one for every call, trained on or not.
    pub targets: Option<Targets>,
}

impl From<Vec<f64>> for Ruling {
    fn from(per_call: Vec<f64>) -> Self {
        Self { per_call, ..Self::default() }
    }
}
