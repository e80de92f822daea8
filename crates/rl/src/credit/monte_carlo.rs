//! Monte Carlo values: state values estimated from sampled completions.
//!
//! VinePPO (Kazemnejad et al., arXiv 2410.01679): the value of the state before a call is the mean
//! reward of K fresh completions from there (K is 9 in the paper), which unlike a critic is
//! unbiased; `A_k = r_k + V_{k+1} − V_k` with V = 0 after the last call, no discount, no whitening.
//! The environment must support continuing a trajectory from a call's state several times.
//! Untrained calls are not steps, as with learned values.
//!
//! Comparison group: none; the completions' mean reward is the baseline.

use serde::{Deserialize, Serialize};

use crate::credit::rule::{CallCredit, CreditRule};
use crate::credit::trajectory::Trajectory;
use crate::credit::values::over_calls;
use crate::error::CreditError;

/// The rule has no parameters: the sampler determines the number of completions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonteCarloCredit {}

impl CreditRule for MonteCarloCredit {
    fn assign(&self, trajectories: &[Trajectory]) -> Result<CallCredit, CreditError> {
        Ok(advantages(trajectories)?.into())
    }
}

/// One-step advantages under the given values.
///
/// # Errors
/// If a trained call has no value.
pub fn advantages(trajectories: &[Trajectory]) -> Result<Vec<f64>, CreditError> {
    let missing = (
        "monte_carlo",
        "values of the states before calls",
        "completions must be sampled from each of them and their rewards averaged",
    );
    over_calls(1.0, 0.0, trajectories, missing).map(|(advantages, _)| advantages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_earns_the_change_of_the_expectation() {
        let mut trajectory = Trajectory::of_calls(0, 1.0, 3);
        // The first call halved the chances, the second made success likely.
        for (call, value) in trajectory.calls.iter_mut().zip([0.5, 0.25, 0.875]) {
            call.value = Some(value);
        }
        assert_eq!(advantages(&[trajectory.clone()]).unwrap(), [-0.25, 0.625, 0.125]);
        // They telescope to the advantage over the expectation at the start.
        let sum: f64 = advantages(&[trajectory]).unwrap().iter().sum();
        assert_eq!(sum, 0.5);
    }

    #[test]
    fn missing_values_are_rejected() {
        let error = advantages(&[Trajectory::of_calls(0, 1.0, 2)]).unwrap_err().to_string();
        assert!(error.contains("monte_carlo") && error.contains("completions"), "{error}");
    }
}
