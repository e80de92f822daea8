//! What an algorithm needs of a run, and whether the run has it.
//!
//! Some algorithms need more than rollouts with rewards: a critic, a reference model, several
//! rollouts of a task. A run says what it can give ([`Capabilities`]) before it begins;
//! [`AlgorithmConfig::check`] refuses what would fail, or silently learn nothing, later.

use crate::advantage::AdvantageConfig;
use crate::config::{AlgorithmConfig, ConfigError};
use crate::credit::CreditConfig;

/// What a run can give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Rollouts of each task in a step.
    pub samples: usize,
    /// A value head that is trained along with the policy.
    pub critic: bool,
    /// Log-probabilities of a frozen reference model.
    pub reference: bool,
    /// Agents name the states in which they call.
    pub anchors: bool,
    /// Agents score their episodes without a call.
    pub counterfactuals: bool,
    /// Episodes can be continued several times from the state before a call.
    pub branching: bool,
}

impl AlgorithmConfig {
    /// Whether it measures calls or tokens against a critic's values.
    pub fn needs_critic(&self) -> bool {
        matches!(self.credit, CreditConfig::LearnedValue(_) | CreditConfig::BilevelGae(_))
            || matches!(self.advantage, AdvantageConfig::Gae(_))
    }

    /// Whether a run with these capabilities can use the algorithm.
    ///
    /// # Errors
    /// The first thing that is missing, what needs it and what would do instead.
    pub fn check(&self, run: &Capabilities) -> Result<(), ConfigError> {
        self.check_credit(run)?;
        self.check_advantage(run)?;
        if self.kl.is_on() && !run.reference {
            let why = "a KL penalty measures the distance to a frozen reference model, and this \
                       run has none: set kl.coefficient to 0";
            return Err(ConfigError::combination("kl.coefficient", why));
        }
        Ok(())
    }

    fn check_credit(&self, run: &Capabilities) -> Result<(), ConfigError> {
        let (has, why) = match self.credit {
            CreditConfig::LearnedValue(_) | CreditConfig::BilevelGae(_) => (
                run.critic,
                "it measures calls against a critic's values, and this run's model has no value \
                 head: use monte_carlo or gigpo, or credit that is compared within groups",
            ),
            CreditConfig::MonteCarlo(_) => (
                run.branching,
                "it needs completions sampled from the state before each call, and this run \
                 cannot continue episodes from there: use gigpo or credit that is compared \
                 within groups",
            ),
            CreditConfig::Gigpo(_) if run.samples < 2 => (
                false,
                "it compares the rollouts of a task with each other, and there is one of each: \
                 set rollout.samples to 2 or more",
            ),
            CreditConfig::Gigpo(_) => (
                run.anchors,
                "it compares calls made in equal states, and this agent does not name its states",
            ),
            CreditConfig::LeaveOneOut(_) => (
                run.counterfactuals,
                "it needs the reward of the episode without a call, and this agent does not \
                 score that",
            ),
            CreditConfig::Identical(_)
            | CreditConfig::EqualShare(_)
            | CreditConfig::LastCall(_)
            | CreditConfig::Discounted(_)
            | CreditConfig::ReturnToGo(_)
            | CreditConfig::Signals(_) => return Ok(()),
        };
        if has {
            return Ok(());
        }
        let why = format!("{} is not possible here: {why}", self.credit.name());
        Err(ConfigError::combination("credit.name", why))
    }

    fn check_advantage(&self, run: &Capabilities) -> Result<(), ConfigError> {
        let name = self.advantage.name();
        if matches!(self.advantage, AdvantageConfig::Gae(_)) && !run.critic {
            let why = "gae needs a critic's values, and this run's model has no value head: use \
                       an estimator that compares within groups, or reinforce_plus_plus";
            return Err(ConfigError::combination("advantage.name", why));
        }
        if run.samples < 2 && !self.advantage.takes_single_rollouts() {
            let why = format!(
                "{name} compares the rollouts of a task with each other, and with one of each \
                 every advantage is 0: set rollout.samples to 2 or more, or use \
                 reinforce_plus_plus"
            );
            return Err(ConfigError::combination("advantage.name", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, run: Capabilities) -> Result<(), ConfigError> {
        let config: AlgorithmConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        config.check(&run)
    }

    #[test]
    fn what_a_run_lacks_is_refused_and_what_it_has_is_not() {
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
    fn one_rollout_is_enough_where_nothing_is_compared() {
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
