//! The algorithm section of an experiment file.
//!
//! Each step of the computation has a table; its `name` selects the algorithm and its other keys
//! are that algorithm's parameters. Unknown names and keys are rejected. The defaults are the
//! paper's recipe: identical credit, GRPO over all calls, PPO with clip 0.2 / 0.3 and dual clip 3,
//! token mean, no KL, no entropy bonus, no correction.
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

use crate::advantage::AdvantageConfig;
use crate::aggregate::Aggregation;
use crate::correction::CorrectionConfig;
use crate::credit::CreditConfig;
use crate::error::{ConfigError, not_negative, positive};
use crate::kl::KlConfig;
use crate::loss::LossConfig;
use crate::needs::{Capabilities, Need};
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
    pub aggregation: Aggregation,
    /// Divisor of `seq-mean-token-sum-norm`; the longest row's length if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_constant: Option<f64>,
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
    /// The weight of each token of the batch of one update, with one rollout per row; see
    /// [`LossConfig::token_weights`].
    pub fn token_weights(&self, rows: &Rows) -> Vec<f64> {
        self.loss.token_weights(self.aggregation, self.aggregation_constant, rows)
    }

    /// The weight of each token of the batch of one update, with row r belonging to rollout
    /// `rollouts[r]`; see [`LossConfig::token_weights_by_rollout`].
    ///
    /// # Panics
    /// If there is not one rollout per row.
    pub fn token_weights_by_rollout(&self, rows: &Rows, rollouts: &[usize]) -> Vec<f64> {
        let constant = self.aggregation_constant;
        self.loss.token_weights_by_rollout(self.aggregation, constant, rows, rollouts)
    }

    /// # Errors
    /// The first invalid value, or the first incompatible combination.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let Some(constant) = self.aggregation_constant {
            positive("aggregation_constant", constant)?;
        }
        not_negative("entropy_coefficient", self.entropy_coefficient)?;
        if let Some(overlong) = &self.overlong {
            overlong.validate()?;
        }
        self.credit.validate()?;
        self.advantage.validate()?;
        self.loss.validate()?;
        self.kl.validate()?;
        self.correction.validate()?;
        self.validate_pairing()
    }

    /// Rejects incompatible combinations.
    fn validate_pairing(&self) -> Result<(), ConfigError> {
        let (credit, advantage) = (self.credit.name(), self.advantage.name());
        if self.credit.is_advantage() {
            if !self.advantage.takes_advantages() {
                let why = format!(
                    "credit {credit} is already an advantage, and \
                     {advantage} would compare that again: use {}",
                    listed(AdvantageConfig::all(), |other| {
                        other.takes_advantages().then(|| other.name())
                    })
                );
                return Err(ConfigError::combination("advantage.name", why));
            }
            let shaped = if self.overlong.is_some() {
                Some("overlong")
            } else {
                self.kl.is_in_reward().then_some("kl.placement")
            };
            if let Some(key) = shaped {
                let why = format!(
                    "it changes what calls earned before they are compared, and credit {credit} \
                     leaves nothing to compare: remove it or choose credit that is a return"
                );
                return Err(ConfigError::combination(key, why));
            }
        }
        if self.group_by != GroupBy::Task && !self.advantage.compares_groups() {
            let why = format!("{advantage} compares no groups, so they cannot be narrowed");
            return Err(ConfigError::combination("group_by", why));
        }
        Ok(())
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

    /// Whether a run with these capabilities can use the algorithm.
    ///
    /// # Errors
    /// The first missing capability, the rule that needs it and alternatives.
    pub fn check(&self, run: &Capabilities) -> Result<(), ConfigError> {
        let lacks = |needs: &[Need]| needs.iter().copied().find(|need| !need.is_met(run));
        if let Some(need) = lacks(self.credit.needs()) {
            let others = listed(CreditConfig::all(), |other| {
                let fits = other.is_advantage() == self.credit.is_advantage();
                (fits && lacks(other.needs()).is_none()).then(|| other.name())
            });
            return Err(refusal("credit.name", self.credit.name(), need, &others));
        }
        if let Some(need) = lacks(self.advantage.needs())
            && !(need == Need::Group && self.advantage.takes_groups_of_one())
        {
            let others = listed(AdvantageConfig::all(), |other| {
                let fits = !self.credit.is_advantage() || other.takes_advantages();
                (fits && lacks(other.needs()).is_none()).then(|| other.name())
            });
            return Err(refusal("advantage.name", self.advantage.name(), need, &others));
        }
        if let Some(need) = lacks(self.loss.needs()) {
            let others = listed(LossConfig::all(), |other| {
                lacks(other.needs()).is_none().then(|| other.name())
            });
            return Err(refusal("loss.name", self.loss.name(), need, &others));
        }
        if self.kl.is_on() && !run.reference {
            let why = "a KL penalty measures the distance to a frozen reference model, and this \
                       run has none: set kl.coefficient to 0";
            return Err(ConfigError::combination("kl.coefficient", why));
        }
        Ok(())
    }
}

/// The error for a rule that a run cannot use: the missing capability and alternative rules.
fn refusal(key: &'static str, rule: &str, need: Need, others: &str) -> ConfigError {
    let instead = match others {
        "" => String::new(),
        others => format!("; rules that this run can use: {others}"),
    };
    ConfigError::combination(key, format!("{rule} {}{instead}", need.refusal()))
}

/// The names of the rules for which `name` returns one, comma-separated.
fn listed<T>(rules: Vec<T>, name: impl Fn(&T) -> Option<&'static str>) -> String {
    rules.iter().filter_map(name).collect::<Vec<_>>().join(", ")
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
        assert_eq!(config.aggregation, Aggregation::TokenMean);
        assert!(!config.kl.is_on());
        assert_eq!(config.validate(), Ok(()));
        let AdvantageConfig::Grpo(grpo) = config.advantage else { panic!("not GRPO") };
        assert_eq!(grpo.group_over, GroupOver::Rows);
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
    fn incompatible_combinations_are_rejected() {
        let losses = LossConfig::NAMES;
        let read = |credit: &str, advantage: &str, more: &str| {
            let tables =
                format!("{more}\n[credit]\nname = '{credit}'\n[advantage]\nname = '{advantage}'\n");
            let loss = |loss| parse(&format!("{tables}[loss]\nname = '{loss}'\n")).unwrap();
            losses.iter().map(loss).collect::<Vec<_>>()
        };
        for estimator in AdvantageConfig::all() {
            for credit in CreditConfig::all() {
                let (credit_name, name) = (credit.name(), estimator.name());
                let fits = !credit.is_advantage() || estimator.takes_advantages();
                for config in read(credit_name, name, "") {
                    assert_eq!(config.validate().is_ok(), fits, "{credit_name} {name}");
                }
            }
        }
        let advantages: Vec<&str> =
            CreditConfig::all().iter().filter(|c| c.is_advantage()).map(|c| c.name()).collect();
        assert_eq!(advantages, ["learned_value", "bilevel_gae", "monte_carlo", "gigpo"]);
        let refused = |credit, advantage, more| {
            read(credit, advantage, more)[0].validate().unwrap_err().key()
        };
        let overlong = "overlong = { max_tokens = 10, buffer = 5 }";
        assert_eq!(refused("gigpo", "none", overlong), "overlong");
        let penalty = "kl = { coefficient = 0.1, placement = 'reward' }";
        assert_eq!(refused("learned_value", "whiten", penalty), "kl.placement");
        assert_eq!(refused("identical", "gae", "group_by = 'role'"), "group_by");
    }

    #[test]
    fn unknown_names_and_keys_are_rejected() {
        for text in [
            "agregation = 'token-mean'",
            "aggregation = 'token_mean'",
            "[loss]\nname = 'pppo'",
            "[loss]\nname = 'ppo'\nclip = 0.2",
            "[loss]\nname = 'gpg'\nclip_low = 0.2",
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

    #[test]
    fn invalid_values_are_rejected_by_key() {
        for (text, key) in [
            ("aggregation_constant = 0", "aggregation_constant"),
            ("entropy_coefficient = -1", "entropy_coefficient"),
            ("[loss]\nname = 'ppo'\nclip_low = 1.5", "loss.clip_low"),
            ("[loss]\nname = 'ppo'\ndual_clip = 1.0", "loss.dual_clip"),
            ("[loss]\nname = 'gspo'\nclip_high = -0.1", "loss.clip_high"),
            ("[advantage]\nname = 'gae'\ngamma = 1.01", "advantage.gamma"),
            ("[advantage]\nname = 'grpo'\nepsilon = nan", "advantage.epsilon"),
            ("[kl]\ncoefficient = inf", "kl.coefficient"),
            ("[credit]\nname = 'discounted'\ngamma = 1.5", "credit.gamma"),
            ("[credit]\nname = 'gigpo'\nstep_weight = -1.0", "credit.step_weight"),
            ("[loss]\nname = 'sapo'\ntau_negative = 0.0", "loss.tau_negative"),
            ("[overlong]\nmax_tokens = 10\nbuffer = 11", "overlong.buffer"),
            ("[correction]\nhigh = nan", "correction.high"),
        ] {
            let error = parse(text).unwrap().validate().unwrap_err();
            assert_eq!(error.key(), key, "{error}");
        }
    }

    fn check(text: &str, run: Capabilities) -> Result<(), ConfigError> {
        let config: AlgorithmConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        config.check(&run)
    }

    #[test]
    fn rules_need_the_capabilities_of_the_run() {
        let plain = Capabilities { samples: 4, ..Capabilities::default() };
        let one = Capabilities { samples: 1, anchors: true, ..plain };
        let whiten = "[advantage]\nname = 'whiten'\n";
        let critic = Capabilities { critic: true, ..plain };
        let anchors = Capabilities { anchors: true, ..plain };
        let credit = |name: &str| format!("{whiten}[credit]\nname = '{name}'\n");
        let reference = Capabilities { reference: true, ..plain };
        let branching = Capabilities { branching: true, ..plain };
        let counterfactuals = Capabilities { counterfactuals: true, ..plain };
        for (text, without, word, with) in [
            ("", one, "every advantage is 0", plain),
            ("[advantage]\nname = 'pass_k'\ncompat = 'verl'", one, "pass_k compares", plain),
            ("[advantage]\nname = 'gae'", plain, "value head", critic),
            (&credit("learned_value"), plain, "value head", critic),
            (&credit("bilevel_gae"), plain, "value head", critic),
            (&credit("monte_carlo"), plain, "completions", branching),
            (&credit("gigpo"), plain, "does not name its states", anchors),
            (&credit("gigpo"), one, "one of each", anchors),
            ("[credit]\nname = 'leave_one_out'", plain, "does not score", counterfactuals),
            ("[kl]\ncoefficient = 0.1", plain, "reference model", reference),
        ] {
            let error = check(text, without).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
            assert_eq!(check(text, with), Ok(()), "{text}");
        }
    }

    #[test]
    fn one_rollout_suffices_without_group_comparison() {
        let one = Capabilities { samples: 1, ..Capabilities::default() };
        for text in [
            "[advantage]\nname = 'reinforce_plus_plus'",
            "[advantage]\nname = 'none'",
            "[advantage]\nname = 'grpo'\ncompat = 'verl'",
        ] {
            assert_eq!(check(text, one), Ok(()), "{text}");
        }
    }
}
