//! Calls with their true advantages, and the values of states that these are estimated from.

use crate::numbers::{mean, sample_std};

/// The estimated value of a state: the mean return of completions from there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateValue {
    pub mean: f64,
    /// Variance of the mean, estimated without bias: the sample variance of the returns over their
    /// number.
    pub noise: f64,
}

impl StateValue {
    /// The value from the returns of independent completions; `None` for fewer than two, whose
    /// noise is unknown.
    ///
    /// ```
    /// use leyden_stats::credit::StateValue;
    ///
    /// let value = StateValue::of(&[0.0, 1.0, 1.0, 0.0]).unwrap();
    /// assert_eq!((value.mean, value.noise), (0.5, 1.0 / 12.0));
    /// ```
    pub fn of(returns: &[f64]) -> Option<Self> {
        let deviation = sample_std(returns)?;
        let noise = deviation * deviation / returns.len() as f64;
        Some(Self { mean: mean(returns)?, noise })
    }

    /// The advantage of a call made in this state, and the variance of its noise. `earned` are the
    /// rewards from this call up to the next one, including the outcome's after the last call;
    /// `next` is the value of the next call's state, estimated from other completions, or `None`
    /// after the last call.
    pub fn advantage(&self, earned: f64, next: Option<&Self>) -> (f64, f64) {
        let (mean, noise) = next.map_or((0.0, 0.0), |next| (next.mean, next.noise));
        (earned + mean - self.mean, noise + self.noise)
    }
}

/// A call with its true advantage and the credit that a rule gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct CreditedCall {
    pub task: usize,
    pub rollout: usize,
    /// Index of the call in its rollout.
    pub position: usize,
    /// A label of the task, such as its horizon; empty if it has none.
    pub label: String,
    /// Estimate of the true advantage.
    pub truth: f64,
    /// Variance of that estimate.
    pub noise: f64,
    pub credit: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_of_known_values() {
        let (before, after) =
            (StateValue { mean: 0.5, noise: 0.01 }, StateValue { mean: 0.75, noise: 0.02 });
        assert_eq!(before.advantage(0.0, Some(&after)), (0.25, 0.03));
        assert_eq!(before.advantage(-0.5, Some(&after)), (-0.25, 0.03));
        // The last call earns the reward, which is known exactly.
        assert_eq!(after.advantage(1.0, None), (0.25, 0.02));
    }

    #[test]
    fn a_value_needs_two_completions() {
        assert_eq!(StateValue::of(&[]), None);
        assert_eq!(StateValue::of(&[1.0]), None);
        assert_eq!(StateValue::of(&[0.1; 3]), Some(StateValue { mean: 0.1, noise: 0.0 }));
    }
}
