//! Credit assignment: from the return of an episode to one number per call.
//!
//! An agent calls the model several times and is rewarded once, at the end. Each call is an
//! action of a Markov decision process and becomes a row of the batch; credit says what each
//! of them earned. One file per rule; a rule sees all episodes of the step at once, with what
//! is known about each call, so that it may compare episodes of a group.
//!
//! There are two kinds of rules. Most say what a call *earned*, which an estimator of
//! [`crate::advantage`] then compares with what others earned. Rules that know what to expect
//! of a state (a critic, completions sampled from it, other visits to it) say by how much the
//! call was better than that: an *advantage*, which is taken as it is (`none`) or whitened, but
//! not compared again. [`crate::config::AlgorithmConfig::validate`] refuses other pairings.

mod bilevel_gae;
mod discounted;
mod episode;
mod equal_share;
mod gigpo;
mod identical;
mod last_call;
mod learned_value;
mod leave_one_out;
mod monte_carlo;
mod return_to_go;
mod signals;

use serde::{Deserialize, Serialize};

use crate::advantage::AdvantageError;
use crate::config::ConfigError;

pub use bilevel_gae::{BilevelGaeCredit, token_advantages};
pub use discounted::DiscountedCredit;
pub use episode::{Episode, EpisodeCall};
pub use equal_share::EqualShareCredit;
pub use gigpo::GigpoCredit;
pub use identical::IdenticalCredit;
pub use last_call::LastCallCredit;
pub use learned_value::LearnedValueCredit;
pub use leave_one_out::LeaveOneOutCredit;
pub use monte_carlo::MonteCarloCredit;
pub use return_to_go::ReturnToGoCredit;
pub use signals::{SignalMode, SignalRewards, SignalsCredit};

/// Why credit cannot be assigned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CreditError {
    /// A rule lacks something that a rollout does not say by itself.
    #[error("credit {rule} needs {what}, and call {call} of episode {episode} has none: {why}")]
    Missing {
        rule: &'static str,
        what: &'static str,
        /// What it is needed for.
        why: &'static str,
        /// Index in the slice of episodes.
        episode: usize,
        call: usize,
    },
    #[error("call {call} of episode {episode} has {values} token values for {tokens} tokens")]
    TokenValues { episode: usize, call: usize, values: usize, tokens: usize },
    #[error(transparent)]
    Comparison(#[from] AdvantageError),
}

/// The trained calls of all episodes as rows, in order: episode after episode, call after call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallReturns {
    /// What each call earned; of a rule whose kind is an advantage, its advantage.
    pub returns: Vec<f64>,
    /// The group of each call.
    pub groups: Vec<usize>,
    /// The index of each call's episode in the slice that was given.
    pub episodes: Vec<usize>,
    /// The index of each call in its episode.
    pub calls: Vec<usize>,
    /// Advantage of each token, flat over the rows, of rules that work token by token.
    pub per_token: Option<Vec<f64>>,
    /// What a critic should have said, of rules that have one.
    pub targets: Option<Targets>,
}

/// What a critic should have said.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Just before each call: at the last token of its prompt.
    Calls(Vec<f64>),
    /// At each token, flat over the rows.
    Tokens(Vec<f64>),
}

/// What a rule says: one number per call of every episode, flat, and further what it has.
/// Numbers of calls that are not trained on are ignored.
#[derive(Default)]
struct Ruling {
    per_call: Vec<f64>,
    per_token: Option<Vec<f64>>,
    /// Of calls: one for every call, trained on or not.
    targets: Option<Targets>,
}

impl From<Vec<f64>> for Ruling {
    fn from(per_call: Vec<f64>) -> Self {
        Self { per_call, ..Self::default() }
    }
}

/// A rule of credit assignment, by `name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum CreditConfig {
    Identical(IdenticalCredit),
    EqualShare(EqualShareCredit),
    LastCall(LastCallCredit),
    Discounted(DiscountedCredit),
    ReturnToGo(ReturnToGoCredit),
    Signals(SignalsCredit),
    LeaveOneOut(LeaveOneOutCredit),
    LearnedValue(LearnedValueCredit),
    BilevelGae(BilevelGaeCredit),
    MonteCarlo(MonteCarloCredit),
    Gigpo(GigpoCredit),
}

impl Default for CreditConfig {
    fn default() -> Self {
        Self::Identical(IdenticalCredit {})
    }
}

impl CreditConfig {
    /// Assigns credit to every trained call of every episode.
    ///
    /// # Errors
    /// If the rule needs what an episode lacks, or a number is not finite.
    pub fn assign(&self, episodes: &[Episode]) -> Result<CallReturns, CreditError> {
        let ruling: Ruling = match self {
            Self::Identical(_) => identical::returns(episodes).into(),
            Self::EqualShare(_) => equal_share::returns(episodes).into(),
            Self::LastCall(_) => last_call::returns(episodes).into(),
            Self::Discounted(config) => discounted::returns(config, episodes).into(),
            Self::ReturnToGo(config) => return_to_go::returns(config, episodes).into(),
            Self::Signals(config) => signals::returns(config, episodes).into(),
            Self::LeaveOneOut(config) => leave_one_out::returns(config, episodes)?.into(),
            Self::LearnedValue(config) => learned_value::ruling(config, episodes)?,
            Self::BilevelGae(config) => bilevel_gae::ruling(config, episodes)?,
            Self::MonteCarlo(_) => monte_carlo::advantages(episodes)?.into(),
            Self::Gigpo(config) => gigpo::advantages(config, episodes)?.into(),
        };
        Ok(rows_of(ruling, episodes))
    }

    /// Whether what it says is already an advantage.
    pub fn is_advantage(&self) -> bool {
        matches!(
            self,
            Self::LearnedValue(_) | Self::BilevelGae(_) | Self::MonteCarlo(_) | Self::Gigpo(_)
        )
    }

    /// The rule's name in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identical(_) => "identical",
            Self::EqualShare(_) => "equal_share",
            Self::LastCall(_) => "last_call",
            Self::Discounted(_) => "discounted",
            Self::ReturnToGo(_) => "return_to_go",
            Self::Signals(_) => "signals",
            Self::LeaveOneOut(_) => "leave_one_out",
            Self::LearnedValue(_) => "learned_value",
            Self::BilevelGae(_) => "bilevel_gae",
            Self::MonteCarlo(_) => "monte_carlo",
            Self::Gigpo(_) => "gigpo",
        }
    }

    /// # Errors
    /// The first value that the rule cannot work with.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::Discounted(config) => config.validate(),
            Self::ReturnToGo(config) => config.validate(),
            Self::Signals(config) => config.validate(),
            Self::LearnedValue(config) => config.validate(),
            Self::BilevelGae(config) => config.validate(),
            Self::Gigpo(config) => config.validate(),
            Self::Identical(_)
            | Self::EqualShare(_)
            | Self::LastCall(_)
            | Self::LeaveOneOut(_)
            | Self::MonteCarlo(_) => Ok(()),
        }
    }
}

/// The trained calls of a ruling.
fn rows_of(ruling: Ruling, episodes: &[Episode]) -> CallReturns {
    let mut rows = CallReturns { per_token: ruling.per_token, ..CallReturns::default() };
    let mut targets = Vec::new();
    let mut place = 0;
    for (index, episode) in episodes.iter().enumerate() {
        for (number, call) in episode.calls.iter().enumerate() {
            if call.trained {
                rows.returns.push(ruling.per_call[place]);
                rows.groups.push(episode.group);
                rows.episodes.push(index);
                rows.calls.push(number);
                if let Some(Targets::Calls(all)) = &ruling.targets {
                    targets.push(all[place]);
                }
            }
            place += 1;
        }
    }
    rows.targets = ruling.targets.map(|kind| match kind {
        Targets::Calls(_) => Targets::Calls(targets),
        tokens => tokens,
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_are_not_trained_on_are_counted_and_become_no_rows() {
        let mut episode = Episode::of_calls(3, 1.0, 4);
        episode.calls[1].trained = false;
        let rows = CreditConfig::EqualShare(EqualShareCredit {}).assign(&[episode]).unwrap();
        assert_eq!(rows.returns, [0.25; 3]);
        assert_eq!(rows.calls, [0, 2, 3]);
        assert_eq!(rows.groups, [3, 3, 3]);
    }

    #[test]
    fn every_rule_is_written_under_its_name() {
        for name in [
            "identical",
            "equal_share",
            "last_call",
            "discounted",
            "return_to_go",
            "signals",
            "leave_one_out",
            "learned_value",
            "bilevel_gae",
            "monte_carlo",
            "gigpo",
        ] {
            let rule: CreditConfig = toml::from_str(&format!("name = '{name}'")).unwrap();
            assert_eq!(rule.name(), name);
            assert_eq!(rule.validate(), Ok(()));
            assert_eq!(toml::from_str::<CreditConfig>(&toml::to_string(&rule).unwrap()), Ok(rule));
        }
    }
}
