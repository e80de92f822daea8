//! Equal share: the calls of an episode split its reward.
//!
//! `c_k = R / K` with K calls. The credits of an episode add up to its reward, so an agent
//! that needs fewer calls for the same reward earns more by each: a pressure towards short
//! episodes that identical credit lacks. With a baseline it is a comparison of rewards per
//! call.

use serde::{Deserialize, Serialize};

use crate::credit::episode::Episode;
use crate::credit::rule::{CreditRule, Ruling};
use crate::error::CreditError;

/// Equal shares have no parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EqualShareCredit {}

impl CreditRule for EqualShareCredit {
    fn assign(&self, episodes: &[Episode]) -> Result<Ruling, CreditError> {
        Ok(returns(episodes).into())
    }
}

/// `R / K` for each of the K calls of an episode.
pub fn returns(episodes: &[Episode]) -> Vec<f64> {
    let share = |episode: &Episode| episode.reward / episode.calls.len() as f64;
    episodes.iter().flat_map(|e| vec![share(e); e.calls.len()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_an_episode_add_up_to_its_reward() {
        let episodes = [
            Episode::of_calls(0, 1.0, 4),
            Episode::of_calls(0, 3.0, 0),
            Episode::of_calls(0, -0.5, 1),
        ];
        assert_eq!(returns(&episodes), [0.25, 0.25, 0.25, 0.25, -0.5]);
    }
}
