//! REINFORCE++: discounted returns, whitened over the whole batch.
//!
//! Hu, *REINFORCE++*, arXiv 2501.03262.
//!
//! Comparison group: none; a token is compared with all tokens of the batch.
//!
//! verl resets the running return to 0 at every token outside the mask. This is intended for
//! padding, but in a row of several calls only the last call then sees the outcome. Here the return
//! is carried over such gaps undiscounted; `compat = "verl"` resets it.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Compat, Estimator, GroupOver};
use crate::advantage::grouping::Grouping;
use crate::advantage::whitening::whiten;
use crate::error::{AdvantageError, ConfigError, fraction};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforcePlusPlusConfig {
    /// Discount per token.
    pub gamma: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Default for ReinforcePlusPlusConfig {
    fn default() -> Self {
        Self { gamma: 1.0, compat: None }
    }
}

impl Estimator for ReinforcePlusPlusConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        fraction("advantage.gamma", self.gamma)
    }

    fn of_verl(name: &str) -> Option<Self> {
        let gamma = name.strip_prefix("reinforce_plus_plus_gamma")?.parse().ok()?;
        Some(Self { gamma, compat: Some(Compat::Verl) })
    }
}

/// `G_t = r_t + γ G_{t+1}` over the tokens inside the mask, whitened.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &ReinforcePlusPlusConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, GroupOver::Rows)?;
    let rewards = batch.token_rewards();
    let mut returns = vec![0.0; batch.rows.tokens()];
    for range in batch.rows.ranges() {
        let mut following = 0.0;
        for t in range.rev() {
            if batch.rows.mask()[t] {
                returns[t] = rewards[t] + config.gamma * following;
                following = returns[t];
            } else if config.compat == Some(Compat::Verl) {
                following = 0.0;
            }
        }
    }
    let white = whiten(&returns, batch.rows, config.compat);
    let counters = grouping.counters_without_comparison(&white, batch.rows);
    Ok(Advantages::of_tokens(white, returns, batch, counters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_return_crosses_gaps_except_under_verl_conventions() {
        let rows = Rows::new(&[5], vec![true, true, false, true, false]).unwrap();
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0], &[0], &[0]);
        let carried = ReinforcePlusPlusConfig { gamma: 0.5, compat: None };
        let whole = advantages(&carried, &batch).unwrap();
        assert_eq!(whole.returns(), [0.25, 0.5, 0.0, 1.0, 0.0]);
        let cut = ReinforcePlusPlusConfig { compat: Some(Compat::Verl), ..carried };
        assert_eq!(advantages(&cut, &batch).unwrap().returns(), [0.0, 0.0, 0.0, 1.0, 0.0]);
    }
}
