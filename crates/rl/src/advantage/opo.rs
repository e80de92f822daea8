//! OPO: the score minus the length-weighted mean of its group.
//!
//! Hao et al., *On-Policy RL with Optimal Reward Baseline*, arXiv 2505.23585: the
//! variance-minimising baseline weighs each sample by the squared norm of its gradient, which
//! grows with its number of tokens.

use serde::{Deserialize, Serialize};

use crate::advantage::batch::{AdvantageInputs, Advantages, Compat, Estimator, GroupOver};
use crate::advantage::grouping::{Comparison, Grouping};
use crate::error::AdvantageError;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpoConfig {
    pub group_over: GroupOver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl Estimator for OpoConfig {
    fn advantages(&self, batch: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        advantages(self, batch)
    }

    fn takes_groups_of_one(&self) -> bool {
        self.compat.is_some()
    }

    fn of_verl(name: &str) -> Option<Self> {
        let compat = Some(Compat::Verl);
        (name == "opo").then_some(Self { group_over: GroupOver::Rows, compat })
    }
}

/// `A = score − (Σ n_i score_i) / (Σ n_i)` with n_i tokens inside the mask; no division by the
/// deviation. A group of one gets 0, under verl's conventions its score. A group without tokens
/// gets its scores, which have no effect on training.
///
/// # Errors
/// If a score is not finite.
pub fn advantages(
    config: &OpoConfig,
    batch: &AdvantageInputs,
) -> Result<Advantages, AdvantageError> {
    let grouping = Grouping::new(batch, config.group_over)?;
    let per_row = grouping.advantages(batch, config.compat, 1.0, |group| {
        let tokens: usize = group.entries.iter().map(|entry| entry.tokens).sum();
        let sum: f64 = group.entries.iter().map(|entry| entry.tokens as f64 * entry.score).sum();
        let baseline = if tokens == 0 { 0.0 } else { sum / tokens as f64 };
        vec![Comparison { baseline, divisor: 1.0 }; group.entries.len()]
    });
    Ok(Advantages::of_rows(per_row, batch, grouping.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rows;

    #[test]
    fn the_baseline_is_weighted_by_length() {
        let rows = Rows::dense(&[1, 3]);
        let batch = AdvantageInputs::of_outcomes(&rows, &[1.0, 0.0], &[0, 0], &[0, 1]);
        let a = advantages(&OpoConfig::default(), &batch).unwrap();
        assert_eq!(a.per_row, [0.75, -0.25]);
    }
}
