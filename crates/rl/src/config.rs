//! The algorithm section of an experiment file.
//!
//! Each step of the computation has a table; its `name` selects the algorithm and its other keys
//! are that algorithm's parameters. Unknown names and keys are rejected. The defaults are the
//! paper's recipe: identical credit, GRPO over all calls, PPO with clip 0.2 / 0.3 and dual clip 3,
//! token mean, no KL, no entropy bonus, no correction.
//!
//! Two keys depend on others if they are not written: `aggregation` on the loss, and
//! `aggregation_constant` on the maximum length of a response, which is not part of this section.
//! [`AlgorithmConfig::with_response_budget`] writes them out.
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

mod checks;

use serde::{Deserialize, Serialize};

use crate::advantage::AdvantageConfig;
use crate::aggregate::{Aggregation, AggregationConstant};
use crate::correction::CorrectionConfig;
use crate::credit::CreditConfig;
use crate::kl::KlConfig;
use crate::loss::LossConfig;
use crate::needs::Need;
use crate::rows::Rows;
use crate::shaping::OverlongConfig;

/// Which calls of a task are compared with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// All, as in the paper.
    #[default]
    Task,
    /// Those of the same agent role, since returns of different roles may differ in scale.
    Role,
    /// Those at the same index in their trajectories, since the remaining return depends on it.
    Turn,
}

/// Everything between returns and a gradient.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlgorithmConfig {
    /// The loss's default if absent: token mean, or the only one that the loss has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Aggregation>,
    /// Divisor of `seq-mean-token-sum-norm`, by default the maximum length of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_constant: Option<AggregationConstant>,
    /// Factor of the entropy bonus; 0 is off.
    pub entropy_coefficient: f64,
    /// Which calls of a task are compared with each other.
    pub group_by: GroupBy,
    /// Penalty on responses near the token limit; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong: Option<OverlongConfig>,
    pub credit: CreditConfig,
    pub advantage: AdvantageConfig,
    pub loss: LossConfig,
    pub kl: KlConfig,
    pub correction: CorrectionConfig,
}

impl AlgorithmConfig {
    /// The configuration with the keys written out that depend on others, for a run whose responses
    /// have at most `max_tokens` tokens.
    pub fn with_response_budget(mut self, max_tokens: usize) -> Self {
        let mode = self.aggregation();
        self.aggregation = Some(mode);
        if mode == Aggregation::SeqMeanTokenSumNorm {
            let budget = AggregationConstant::Tokens(max_tokens as f64);
            self.aggregation_constant.get_or_insert(budget);
        }
        self
    }

    /// The aggregation of the loss.
    pub fn aggregation(&self) -> Aggregation {
        self.aggregation.unwrap_or_else(|| self.loss.default_aggregation())
    }

    /// The weight of each token of the batch of one update, with one rollout per row; see
    /// [`LossConfig::token_weights`].
    ///
    /// # Panics
    /// If the configuration is not valid.
    pub fn token_weights(&self, rows: &Rows) -> Vec<f64> {
        self.loss.token_weights(self.aggregation(), self.aggregation_constant, rows)
    }

    /// The weight of each token of the batch of one update, with row r belonging to rollout
    /// `rollouts[r]`; see [`LossConfig::token_weights_by_rollout`].
    ///
    /// # Panics
    /// If there is not one rollout per row, or the configuration is not valid.
    pub fn token_weights_by_rollout(&self, rows: &Rows, rollouts: &[usize]) -> Vec<f64> {
        let constant = self.aggregation_constant;
        self.loss.token_weights_by_rollout(self.aggregation(), constant, rows, rollouts)
    }

    /// Whether the algorithm uses a critic's values.
    pub fn needs_critic(&self) -> bool {
        self.needs().any(|need| need == Need::Critic)
    }

    /// The needs of all selected rules.
    fn needs(&self) -> impl Iterator<Item = Need> {
        let (credit, advantage) = (self.credit.needs(), self.advantage.needs());
        credit.iter().chain(advantage).chain(self.loss.needs()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::GroupOver;
    use crate::loss::ppo::PpoConfig;

    fn parse(text: &str) -> Result<AlgorithmConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_defaults_are_the_paper_s() {
        let config = parse("").unwrap();
        assert_eq!(config, AlgorithmConfig::default());
        let paper = PpoConfig { clip_low: 0.2, clip_high: 0.3, dual_clip: Some(3.0) };
        assert_eq!(config.loss, LossConfig::Ppo(paper));
        assert_eq!(config.aggregation(), Aggregation::TokenMean);
        assert!(!config.kl.is_on());
        assert_eq!(config.validate(), Ok(()));
        let AdvantageConfig::Grpo(grpo) = config.advantage else { panic!("not GRPO") };
        assert_eq!(grpo.group_over, GroupOver::Rows);
    }

    /// Estimators whose papers compare samples compare rollouts, and rows where verl's conventions
    /// or the file say so.
    #[test]
    fn the_unit_of_comparison_is_the_paper_s_unless_written() {
        let unit = |keys: &str| {
            let config = parse(&format!("[advantage]\n{keys}")).unwrap();
            let text = toml::to_string(&config.advantage).unwrap();
            assert_eq!(toml::from_str::<AdvantageConfig>(&text).unwrap(), config.advantage);
            let written = text.lines().find_map(|line| line.strip_prefix("group_over = "));
            written.unwrap_or("").trim_matches('"').to_owned()
        };
        for name in ["grpo", "reinforce_plus_plus_baseline"] {
            assert_eq!(unit(&format!("name = '{name}'")), "rows");
            assert_eq!(unit(&format!("name = '{name}'\ngroup_over = 'rollouts'")), "rollouts");
        }
        for name in ["rloo", "opo", "max_rl", "pass_k"] {
            assert_eq!(unit(&format!("name = '{name}'")), "rollouts");
            assert_eq!(unit(&format!("name = '{name}'\ngroup_over = 'rows'")), "rows");
        }
        for name in ["rloo", "opo"] {
            assert_eq!(unit(&format!("name = '{name}'\ncompat = 'verl'")), "rows");
            let both = format!("name = '{name}'\ncompat = 'verl'\ngroup_over = 'rollouts'");
            assert_eq!(unit(&both), "rollouts");
        }
    }

    #[test]
    fn unwritten_keys_follow_from_the_loss_and_the_response_budget() {
        let resolved = |text: &str| {
            let config = parse(text).unwrap().with_response_budget(48);
            assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
            assert_eq!(config.validate(), Ok(()), "{text}");
            (config.aggregation.unwrap(), config.aggregation_constant)
        };
        let norm = "aggregation = 'seq-mean-token-sum-norm'\n";
        let written = format!("{norm}aggregation_constant = 512");
        let longest = format!("{norm}aggregation_constant = 'longest'");
        let tokens = |count| Some(AggregationConstant::Tokens(count));
        for (text, mode, constant) in [
            ("", Aggregation::TokenMean, None),
            ("[loss]\nname = 'gpg'", Aggregation::TokenMean, None),
            ("[loss]\nname = 'sapo'", Aggregation::SeqMeanTokenMean, None),
            (norm, Aggregation::SeqMeanTokenSumNorm, tokens(48.0)),
            (&written, Aggregation::SeqMeanTokenSumNorm, tokens(512.0)),
            (&longest, Aggregation::SeqMeanTokenSumNorm, Some(AggregationConstant::LONGEST)),
        ] {
            assert_eq!(resolved(text), (mode, constant), "{text}");
        }
        // 3 rows and the budget of 48 tokens.
        let config = parse(norm).unwrap().with_response_budget(48);
        assert_eq!(config.token_weights(&Rows::dense(&[2, 1, 1])), [1.0 / 144.0; 4]);
    }

    #[test]
    fn a_configuration_round_trips_through_toml() {
        let config = parse(
            "aggregation = 'seq-mean-token-sum-norm'\n\
             aggregation_constant = 512\n\
             [advantage]\nname = 'grpo'\ndivide_by_std = false\ngroup_over = 'rollouts'\n\
             compat = 'verl'\n\
             [loss]\nname = 'gspo'\nclip_low = 0.0003\n\
             [kl]\nestimator = 'low_var_kl'\ncoefficient = 0.001\nadaptive = { target = 0.2 }\n\
             [credit]\nname = 'signals'\nrewards = { tool_error = -0.3, other = { x = 1.0 } }\n\
             [overlong]\nmax_tokens = 64\nbuffer = 16\n\
             [correction]\nweight = 'token'\n\
             reject = [{ over = 'sequence_mean', by = 'k1', low = 0.9, high = 1.1 }]\n",
        )
        .unwrap();
        assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    /// Every credit rule with every estimator and every loss is valid or rejected with a reason.
    #[test]
    fn unknown_names_and_keys_are_rejected() {
        for text in [
            "agregation = 'token-mean'",
            "aggregation = 'token_mean'",
            "aggregation_constant = 'shortest'",
            "[loss]\nname = 'pppo'",
            "[loss]\nname = 'ppo'\nclip = 0.2",
            "[loss]\nname = 'gpg'\nclip_low = 0.2",
            "[advantage]\nname = 'rloo'\nepsilon = 1.0",
            "[credit]\nname = 'last_call'\nothers = 'one'",
            "[advantage]\nname = 'grpo'\ncompat = 'vrel'",
            "[advantage]\nname = 'opo'\nepsilon = 1.0",
            "[credit]\nname = 'identical'\ngamma = 1.0",
            "[credit]\nname = 'discount'",
            "[credit]\nname = 'gigpo'\nweight = 1.0",
            "[correction]\nweight = 'tokens'",
            "group_by = 'agent'",
            "[kl]\nbeta = 0.1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
