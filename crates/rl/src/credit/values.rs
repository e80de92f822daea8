//! Advantages of calls with known state values, from any source.

use crate::credit::trajectory::Trajectory;
use crate::error::CreditError;
use crate::temporal::estimates;

/// Advantages over the trained calls of each trajectory, and targets `A + V`; 0 for other calls.
/// `missing` has the fields `rule`, `what` and `why` of the error for a call without value.
pub(crate) fn over_calls(
    gamma: f64,
    lambda: f64,
    trajectories: &[Trajectory],
    missing: (&'static str, &'static str, &'static str),
) -> Result<(Vec<f64>, Vec<f64>), CreditError> {
    let (rule, what, why) = missing;
    let (mut advantages, mut targets) = (Vec::new(), Vec::new());
    for (index, trajectory) in trajectories.iter().enumerate() {
        let start = advantages.len();
        advantages.resize(start + trajectory.calls.len(), 0.0);
        targets.resize(start + trajectory.calls.len(), 0.0);
        let trained = trajectory.trained_steps();
        let mut steps = Vec::with_capacity(trained.len());
        for &(call, reward) in &trained {
            let value = trajectory.calls[call].value;
            let value =
                value.ok_or(CreditError::Missing { rule, what, why, trajectory: index, call })?;
            steps.push((reward, value));
        }
        let estimates = estimates(&steps, gamma, lambda);
        for ((&(call, _), &(_, value)), advantage) in trained.iter().zip(&steps).zip(estimates) {
            advantages[start + call] = advantage;
            targets[start + call] = advantage + value;
        }
    }
    Ok((advantages, targets))
}
