//! Checks of an algorithm's configuration: invalid values, incompatible choices, and needs that a
//! run does not meet.

use crate::advantage::AdvantageConfig;
use crate::aggregate::Aggregation;
use crate::config::{AlgorithmConfig, GroupBy};
use crate::credit::CreditConfig;
use crate::error::{ConfigError, not_negative};
use crate::loss::LossConfig;
use crate::needs::{Capabilities, Need};

impl AlgorithmConfig {
    /// # Errors
    /// The first invalid value, or the first incompatible combination.
    pub fn validate(&self) -> Result<(), ConfigError> {
        not_negative("entropy_coefficient", self.entropy_coefficient)?;
        if let Some(overlong) = &self.overlong {
            overlong.validate()?;
        }
        self.credit.validate()?;
        self.advantage.validate()?;
        self.loss.validate()?;
        self.kl.validate()?;
        self.correction.validate()?;
        self.validate_aggregation()?;
        self.validate_pairing()
    }

    /// Rejects an aggregation that would not be used, and one that lacks its divisor.
    fn validate_aggregation(&self) -> Result<(), ConfigError> {
        let mode = self.aggregation();
        if !self.loss.takes_aggregation(mode) {
            let why = format!(
                "loss {} is defined on whole rows and is always a mean over rows: remove the key, \
                 or set it to seq-mean-token-mean",
                self.loss.name()
            );
            return Err(ConfigError::combination("aggregation", why));
        }
        let why = match (mode, self.aggregation_constant) {
            (Aggregation::SeqMeanTokenSumNorm, Some(constant)) => return constant.validate(),
            (Aggregation::SeqMeanTokenSumNorm, None) => {
                "seq-mean-token-sum-norm divides by a number of tokens, and there is none: set it \
                 to the maximum length of a response"
            }
            (_, Some(_)) => {
                "it is the divisor of the aggregation seq-mean-token-sum-norm and of no other: \
                 remove it"
            }
            (_, None) => return Ok(()),
        };
        Err(ConfigError::combination("aggregation_constant", why))
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

    fn parse(text: &str) -> Result<AlgorithmConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_aggregation_that_would_not_be_used_is_rejected() {
        let validate = |text: &str| parse(text).unwrap().validate();
        for loss in ["gspo", "sapo", "geo_mean"] {
            let with = |key: &str| validate(&format!("{key}\n[loss]\nname = '{loss}'"));
            assert_eq!(with(""), Ok(()));
            assert_eq!(with("aggregation = 'seq-mean-token-mean'"), Ok(()));
            for mode in ["token-mean", "per-rollout-mean", "seq-mean-token-sum-norm"] {
                let error = with(&format!("aggregation = '{mode}'")).unwrap_err();
                assert_eq!(error.key(), "aggregation");
                assert!(error.to_string().contains(loss), "{error}");
            }
        }
        for text in [
            "aggregation_constant = 512",
            "aggregation = 'token-mean'\naggregation_constant = 'longest'",
            "aggregation = 'seq-mean-token-sum-norm'",
        ] {
            assert_eq!(validate(text).unwrap_err().key(), "aggregation_constant", "{text}");
        }
    }

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
    fn invalid_values_are_rejected_by_key() {
        for (text, key) in [
            (
                "aggregation = 'seq-mean-token-sum-norm'\naggregation_constant = 0",
                "aggregation_constant",
            ),
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
