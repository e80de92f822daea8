//! The choice of an algorithm, as it is written in an experiment file.
//!
//! Each step of the mathematics has a table; a table's `name` selects the algorithm and its
//! other keys are that algorithm's own. Unknown names and keys are refused. The defaults are
//! those of the paper's recipes: identical credit, GRPO over all calls, PPO with clip 0.2 / 0.3
//! and dual clip 3, token mean, no KL, no entropy bonus.
//!
//! ```toml
//! aggregation = "token-mean"
//! [credit]
//! name = "identical"
//! [advantage]
//! name = "grpo"
//! group_over = "rows"
//! [loss]
//! name = "ppo"
//! clip_high = 0.28
//! ```

use serde::{Deserialize, Serialize};

use crate::Rows;
use crate::advantage::AdvantageConfig;
use crate::aggregate::Aggregation;
use crate::credit::CreditConfig;
use crate::kl::KlConfig;
use crate::loss::LossConfig;

/// A value that an algorithm cannot work with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} = {value} is not possible: it must be {expected}")]
pub struct ConfigError {
    /// The key within the algorithm's configuration (`loss.clip_low`).
    pub key: &'static str,
    pub value: f64,
    pub expected: &'static str,
}

/// Everything between returns and a gradient.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlgorithmConfig {
    pub aggregation: Aggregation,
    /// Divisor of `seq-mean-token-sum-norm`; the longest row's length if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_constant: Option<f64>,
    /// Factor of the entropy bonus; 0 is off.
    pub entropy_coefficient: f64,
    pub credit: CreditConfig,
    pub advantage: AdvantageConfig,
    pub loss: LossConfig,
    pub kl: KlConfig,
}

impl AlgorithmConfig {
    /// The weight of each token of a batch that makes one update; see
    /// [`LossConfig::token_weights`].
    pub fn token_weights(&self, rows: &Rows) -> Vec<f64> {
        self.loss.token_weights(self.aggregation, self.aggregation_constant, rows)
    }

    /// # Errors
    /// The first value that the chosen algorithms cannot work with.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(constant) = self.aggregation_constant {
            positive("aggregation_constant", constant)?;
        }
        not_negative("entropy_coefficient", self.entropy_coefficient)?;
        self.advantage.validate()?;
        self.loss.validate()?;
        self.kl.validate()
    }
}

/// Refuses `value` unless `holds`; NaN holds nothing.
pub(crate) fn require(
    holds: bool,
    key: &'static str,
    value: f64,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { key, value, expected }) }
}

pub(crate) fn positive(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require(value > 0.0 && value.is_finite(), key, value, "a positive number")
}

pub(crate) fn not_negative(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require(value >= 0.0 && value.is_finite(), key, value, "a number that is not negative")
}

pub(crate) fn fraction(key: &'static str, value: f64) -> Result<(), ConfigError> {
    require((0.0..=1.0).contains(&value), key, value, "a number from 0 to 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::GroupOver;
    use crate::loss::PpoConfig;

    fn parse(text: &str) -> Result<AlgorithmConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_defaults_are_the_paper_s() {
        let config = parse("").unwrap();
        assert_eq!(config, AlgorithmConfig::default());
        let paper = PpoConfig { clip_low: 0.2, clip_high: 0.3, dual_clip: Some(3.0) };
        assert_eq!(config.loss, LossConfig::Ppo(paper));
        assert_eq!(config.aggregation, Aggregation::TokenMean);
        assert!(!config.kl.is_on());
        assert_eq!(config.validate(), Ok(()));
        let AdvantageConfig::Grpo(grpo) = config.advantage else { panic!("not GRPO") };
        assert_eq!(grpo.group_over, GroupOver::Rows);
    }

    #[test]
    fn a_configuration_survives_being_written() {
        let config = parse(
            "aggregation = 'seq-mean-token-sum-norm'\n\
             aggregation_constant = 512\n\
             [advantage]\nname = 'grpo'\ndivide_by_std = false\ngroup_over = 'rollouts'\n\
             compat = 'verl'\n\
             [loss]\nname = 'gspo'\nclip_low = 0.0003\n\
             [kl]\nestimator = 'low_var_kl'\ncoefficient = 0.001\n",
        )
        .unwrap();
        assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn unknown_names_and_keys_are_refused() {
        for text in [
            "agregation = 'token-mean'",
            "aggregation = 'token_mean'",
            "[loss]\nname = 'pppo'",
            "[loss]\nname = 'ppo'\nclip = 0.2",
            "[loss]\nname = 'gpg'\nclip_low = 0.2",
            "[advantage]\nname = 'grpo'\ncompat = 'vrel'",
            "[advantage]\nname = 'opo'\nepsilon = 1.0",
            "[credit]\nname = 'identical'\ngamma = 1.0",
            "[credit]\nname = 'discounted'",
            "[kl]\nbeta = 0.1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn impossible_values_are_refused_by_key() {
        for (text, key) in [
            ("aggregation_constant = 0", "aggregation_constant"),
            ("entropy_coefficient = -1", "entropy_coefficient"),
            ("[loss]\nname = 'ppo'\nclip_low = 1.5", "loss.clip_low"),
            ("[loss]\nname = 'ppo'\ndual_clip = 1.0", "loss.dual_clip"),
            ("[loss]\nname = 'gspo'\nclip_high = -0.1", "loss.clip_high"),
            ("[advantage]\nname = 'gae'\ngamma = 1.01", "advantage.gamma"),
            ("[advantage]\nname = 'grpo'\nepsilon = nan", "advantage.epsilon"),
            ("[kl]\ncoefficient = inf", "kl.coefficient"),
        ] {
            let error = parse(text).unwrap().validate().unwrap_err();
            assert_eq!(error.key, key, "{error}");
        }
    }
}
