//! Generalised advantage estimation: PPO's estimator, with a critic.
//!
//! Schulman et al., arXiv 1506.02438. Tokens outside the mask are not steps: the value that
//! follows a token is that of the next token inside the mask, however many tool results lie
//! between them.
//!
//! Comparison group: none; a critic's values are the baseline, and advantages are whitened over all
//! tokens of the batch.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Estimator, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::advantage::whitening::whiten;
use crate::error::{AdvantageError, ConfigError, fraction};
use crate::temporal::estimates;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaeConfig {
    /// Discount per token.
    pub gamma: f64,
    /// Weight of longer estimates: 0 trusts the critic, 1 the return.
    pub lambda: f64,
}

impl Default for GaeConfig {
    fn default() -> Self {
        Self { gamma: 1.0, lambda: 1.0 }
    }
}

impl Estimator for GaeConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("advantage.gamma", self.gamma)?;
        fraction("advantage.lambda", self.lambda)
    }

    fn of_verl(name: &str) -> Option<Self> {
        let (gamma, lambda) = name.strip_prefix("gae_gamma")?.split_once("_lambda")?;
        Some(Self { gamma: gamma.parse().ok()?, lambda: lambda.parse().ok()? })
    }
}

/// `δ_t = r_t + γ V_{t+1} − V_t`, `A_t = δ_t + γλ A_{t+1}` over the tokens inside the mask,
/// backwards from V = A = 0. Returns are `A + V`; advantages are then whitened.
///
/// # Errors
/// If there are no values or a score is not finite.
pub fn advantages(
    config: &GaeConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, GroupOver::Rows)?;
    let values = batch.values.ok_or(AdvantageError::NoValues)?;
    batch.rows.assert_fits("values", values);
    let rewards = batch.token_rewards();
    let mut raw = vec![0.0; batch.rows.tokens()];
    let mut returns = raw.clone();
    for row in 0..batch.rows.len() {
        let steps: Vec<(f64, f64)> =
            batch.rows.active_in(row).map(|t| (rewards[t], values[t])).collect();
        let estimates = estimates(&steps, config.gamma, config.lambda);
        for (t, estimate) in batch.rows.active_in(row).zip(estimates) {
            raw[t] = estimate;
            returns[t] = estimate + values[t];
        }
    }
    let white = whiten(&raw, batch.rows, None);
    let counters = grouping.counters_without_comparison(&white, batch.rows);
    Ok(Advantages::of_tokens(white, returns, batch, counters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn masked_tokens_are_not_steps() {
        let values = [0.2, f64::NAN, f64::NAN, 0.4, 0.1];
        let holed = Rows::new(&[5], vec![true, false, false, true, true]).unwrap();
        let config = GaeConfig { gamma: 0.9, lambda: 0.8 };
        let with = AdvantageInputs {
            values: Some(&values),
            ..AdvantageInputs::of_outcomes(&holed, &[1.0], &[0], &[0])
        };
        let with = advantages(&config, &with).unwrap();
        let dense = Rows::dense(&[3]);
        let without = AdvantageInputs {
            values: Some(&[0.2, 0.4, 0.1]),
            ..AdvantageInputs::of_outcomes(&dense, &[1.0], &[0], &[0])
        };
        let without = advantages(&config, &without).unwrap();
        assert_eq!(
            [with.returns()[0], with.returns()[3], with.returns()[4]],
            without.returns()[..]
        );
        assert_eq!(with.per_token[1..3], [0.0, 0.0]);
        // The last two tokens, computed by hand.
        assert_eq!(without.returns()[2], 1.0);
        let second = (0.9 * 0.1 - 0.4) + 0.9 * 0.8 * 0.9 + 0.4;
        assert!((without.returns()[1] - second).abs() < 1e-15);
    }

    #[test]
    fn a_critic_is_needed() {
        let rows = Rows::dense(&[2]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0], &[0], &[0]);
        assert_eq!(advantages(&GaeConfig::default(), &batch), Err(AdvantageError::NoValues));
    }
}
