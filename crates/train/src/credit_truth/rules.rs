//! Credit rules with the comparison under which they are measured.

use leyden_rl::advantage::{AdvantageConfig, GroupOver};
use leyden_rl::config::{AlgorithmConfig, GroupBy};
use leyden_rl::credit::CreditConfig;
use leyden_rl::needs::Need;
use serde::Deserialize;

use crate::config::Experiment;
use crate::error::TrainError;

/// The name of the estimator with a critic's value at every token, measured as a rule.
const GAE: &str = "gae";

/// Rules with other parameters than their defaults. They are data: the code names no rule.
const VARIANTS: &str = include_str!("variants.toml");

#[derive(Deserialize)]
struct Variants {
    rules: Vec<String>,
}

fn variants() -> Vec<String> {
    toml::from_str::<Variants>(VARIANTS).expect("the file is part of the program").rules
}

/// A credit rule to be measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Name and parameters, for tables.
    pub name: String,
    /// Assigns credit and compares it, without dividing by a standard deviation.
    pub algorithm: AlgorithmConfig,
}

/// The comparison of a rule whose credit is a return.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Compared {
    group_by: Option<GroupBy>,
    group_over: Option<GroupOver>,
}

impl Rule {
    /// The names of the rules.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CreditConfig::NAMES.iter().copied().chain([GAE])
    }

    /// Every rule with its defaults, and some with other parameters.
    pub fn all() -> Vec<Self> {
        let texts = Self::names().map(str::to_owned).chain(variants());
        texts.map(|text| Self::parse(&text).expect("known names and keys")).collect()
    }

    /// A rule by its name, or by the keys of a table: `name = "discounted", gamma = 0.9`. In
    /// addition to the keys of `algorithm.credit` (for `gae`, of `algorithm.advantage`) there are
    /// `group_by` (by default the roles for `leave_one_out`, else the task) and `group_over` (by
    /// default the rows).
    ///
    /// # Errors
    /// An unknown name or key, an invalid value, a comparison of a rule that is not compared.
    pub fn parse(text: &str) -> Result<Self, TrainError> {
        let reject = |what: String| TrainError::Invalid(format!("rule `{text}`: {what}"));
        let text = text.trim();
        let line = match text.contains('=') {
            true => format!("rule = {{ {text} }}"),
            false => format!("rule = {{ name = {text:?} }}"),
        };
        let table: toml::Table = line.parse().map_err(|e: toml::de::Error| {
            reject(format!("{}; write NAME or name = \"NAME\", KEY = VALUE, …", e.message()))
        })?;
        let mut keys = match table.get("rule") {
            Some(toml::Value::Table(keys)) if table.len() == 1 => keys.clone(),
            _ => return Err(reject("write NAME or name = \"NAME\", KEY = VALUE, …".to_owned())),
        };
        let Some(name) = keys.get("name").and_then(|name| name.as_str()).map(str::to_owned) else {
            return Err(reject("it has no name".to_owned()));
        };
        if !Self::names().any(|known| known == name) {
            let known: Vec<&str> = Self::names().collect();
            return Err(reject(format!("no such rule; the rules are {}", known.join(", "))));
        }
        let label = label(&name, &keys);
        let compared: toml::Table = ["group_by", "group_over"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), keys.remove(key)?)))
            .collect();
        let is_compared = !compared.is_empty();
        let message = |e: toml::de::Error| reject(e.message().to_owned());
        let compared: Compared = compared.try_into().map_err(message)?;
        let keys = toml::Value::Table(keys);
        let mut rule = if name == GAE {
            let advantage = keys.try_into().map_err(message)?;
            let algorithm = AlgorithmConfig { advantage, ..AlgorithmConfig::default() };
            Self { name: label, algorithm }
        } else {
            Self { name: label, algorithm: relative(keys.try_into().map_err(message)?) }
        };
        match &mut rule.algorithm.advantage {
            AdvantageConfig::Grpo(grpo) => {
                grpo.group_over = compared.group_over.unwrap_or(grpo.group_over);
                rule.algorithm.group_by = compared.group_by.unwrap_or(rule.algorithm.group_by);
            }
            _ if is_compared => {
                let what = "its credit is an advantage, which is not compared: remove group_by \
                    and group_over";
                return Err(reject(what.to_owned()));
            }
            _ => {}
        }
        rule.algorithm.validate().map_err(|e| reject(e.to_string()))?;
        Ok(rule)
    }

    /// The rule that a run uses, with its parameters and its comparison groups.
    pub fn of_run(experiment: &Experiment) -> Self {
        let run = &experiment.algorithm;
        let name = |name: &str| format!("{name}, as in the run");
        if let AdvantageConfig::Gae(_) = run.advantage {
            let advantage = run.advantage.clone();
            let algorithm = AlgorithmConfig {
                credit: run.credit.clone(),
                advantage,
                ..AlgorithmConfig::default()
            };
            return Self { name: name(GAE), algorithm };
        }
        let mut algorithm = relative(run.credit.clone());
        if let AdvantageConfig::Grpo(grpo) = &mut algorithm.advantage {
            algorithm.group_by = run.group_by;
            if let AdvantageConfig::Grpo(own) = &run.advantage {
                grpo.group_over = own.group_over;
            }
        }
        Self { name: name(run.credit.name()), algorithm }
    }

    /// Whether it needs a critic's values.
    pub fn needs_critic(&self) -> bool {
        self.algorithm.needs_critic()
    }

    /// Whether it needs intermediate answers of the agent.
    pub(super) fn needs_drafts(&self) -> bool {
        self.algorithm.credit.needs().contains(&Need::Counterfactuals)
    }

    /// Whether a critic for it is trained on the states before calls only, not on every token.
    pub(super) fn values_calls_only(&self) -> bool {
        matches!(self.algorithm.credit, CreditConfig::LearnedValue(_))
    }
}

/// The credit rule with the estimator that makes its credit relative without dividing it.
fn relative(credit: CreditConfig) -> AlgorithmConfig {
    let group_by = match credit {
        CreditConfig::LeaveOneOut(_) => GroupBy::Role,
        _ => GroupBy::Task,
    };
    if credit.is_advantage() {
        let advantage = estimator("name = 'none'");
        return AlgorithmConfig { credit, advantage, ..AlgorithmConfig::default() };
    }
    let advantage = estimator("name = 'grpo'\ndivide_by_std = false");
    AlgorithmConfig { credit, advantage, group_by, ..AlgorithmConfig::default() }
}

fn estimator(keys: &str) -> AdvantageConfig {
    toml::from_str(keys).expect("known names and keys")
}

/// `discounted, gamma = 0.9`.
fn label(name: &str, keys: &toml::Table) -> String {
    let others = keys.iter().filter(|(key, _)| *key != "name");
    others.fold(name.to_owned(), |label, (key, value)| match value.as_str() {
        Some(text) => format!("{label}, {key} = {text}"),
        None => format!("{label}, {key} = {value}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_relative_but_not_divided() {
        let all = Rule::all();
        assert_eq!(all.len(), CreditConfig::NAMES.len() + 1 + variants().len());
        for rule in &all {
            assert_eq!(rule.algorithm.validate(), Ok(()), "{}", rule.name);
            match &rule.algorithm.advantage {
                AdvantageConfig::Grpo(grpo) => assert!(!grpo.divide_by_std),
                AdvantageConfig::None(_) => assert!(rule.algorithm.credit.is_advantage()),
                AdvantageConfig::Gae(_) => assert_eq!(rule.name, GAE),
                other => panic!("{}: {other:?}", rule.name),
            }
        }
        let critics: Vec<&str> =
            all.iter().filter(|r| r.needs_critic()).map(|r| r.name.as_str()).collect();
        assert_eq!(critics, ["learned_value", "bilevel_gae", "gae"]);
    }

    #[test]
    fn parameters_and_comparison_are_read() {
        let rule = Rule::parse("name = 'return_to_go', gamma = 0.5, group_by = 'turn'").unwrap();
        assert_eq!(rule.name, "return_to_go, gamma = 0.5, group_by = turn");
        assert_eq!(rule.algorithm.group_by, GroupBy::Turn);
        let CreditConfig::ReturnToGo(own) = &rule.algorithm.credit else { panic!("{rule:?}") };
        assert_eq!(own.gamma, 0.5);
        assert_eq!(Rule::parse("leave_one_out").unwrap().algorithm.group_by, GroupBy::Role);
        let over = Rule::parse("name = 'identical', group_over = 'rollouts'").unwrap();
        let AdvantageConfig::Grpo(grpo) = &over.algorithm.advantage else { panic!("{over:?}") };
        assert_eq!(grpo.group_over, GroupOver::Rollouts);
    }

    #[test]
    fn unknown_rules_and_keys_are_rejected_with_a_reason() {
        for (text, part) in [
            ("identicle", "no such rule; the rules are identical, equal_share"),
            ("gamma = 0.5", "it has no name"),
            ("name = 'discounted', gama = 0.5", "gama"),
            ("name = 'discounted', gamma = 1.5", "credit.gamma"),
            ("name = 'gigpo', group_by = 'turn'", "which is not compared"),
            ("name = 'identical', group_by = 'agent'", "agent"),
            ("name = }", "write NAME"),
            ("name = 'identical' }\nother = { x = 1", "write NAME"),
        ] {
            let error = Rule::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
