//! What was measured, and the agreement of each rule.

use leyden_core::SeedTree;
use leyden_stats::credit::{
    AgreementError, CorrelationDifference, CreditedCall, RuleAgreement, agreement,
    correlation_difference,
};
use serde::Serialize;
use serde_json::Value;

/// Bootstrap resamples of tasks.
const RESAMPLES: usize = 2000;

/// A call with its true advantage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Call {
    /// Tasks of equal numbers are one task.
    pub task: usize,
    pub task_id: String,
    pub rollout: usize,
    /// Index in its rollout.
    pub position: usize,
    /// Number of calls of its rollout.
    pub calls: usize,
    pub role: String,
    /// The task's value of the label; empty if it has none.
    pub label: String,
    /// The rollout's reward.
    pub reward: f64,
    /// Estimate of the true advantage.
    pub truth: f64,
    /// Variance of that estimate.
    pub noise: f64,
}

/// A rule with its credit.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub name: String,
    /// Where its critic is from, for rules that need one.
    pub critic: Option<String>,
    /// One number per call, or why there are none.
    pub credit: Result<Vec<f64>, String>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub title: String,
    /// Policy, tasks and numbers of samples, in words.
    pub about: String,
    /// Name of the label of the calls.
    pub label: String,
    pub calls: Vec<Call>,
    pub rules: Vec<Rule>,
    pub settings: Value,
    pub counts: Value,
    pub provenance: Value,
}

/// A rule with its agreement.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleRow {
    pub name: String,
    pub critic: Option<String>,
    /// Or why it was not measured.
    pub agreement: Result<RuleAgreement, String>,
    /// Of its correlation from that of [`CreditReport::baseline`], unless it is the baseline.
    pub difference: Option<CorrelationDifference>,
}

/// The measured rules, those of the highest correlation first.
#[derive(Debug, Clone, PartialEq)]
pub struct CreditReport<'a> {
    pub(super) measurement: &'a Measurement,
    pub rules: Vec<RuleRow>,
    /// Name of the rule that the others are compared with: the first one that was measured.
    pub baseline: Option<String>,
}

impl<'a> CreditReport<'a> {
    /// Compares every rule with the truth; intervals draw from `seeds`.
    ///
    /// # Errors
    /// No calls; a number that is not finite.
    ///
    /// # Panics
    /// If a rule has not one number per call.
    pub fn of(measurement: &'a Measurement, seeds: SeedTree) -> Result<Self, AgreementError> {
        let baseline = measurement.rules.iter().find(|rule| rule.credit.is_ok());
        let of = |credit: &Vec<f64>| credited(&measurement.calls, credit);
        let base = baseline.and_then(|rule| rule.credit.as_ref().ok()).map(of).unwrap_or_default();
        let compare = |rule: &Rule| {
            let (agreement, difference) = match &rule.credit {
                Ok(credit) => {
                    let calls = of(credit);
                    let own = agreement(&calls, RESAMPLES, seeds)?;
                    let of_base = baseline.is_some_and(|baseline| baseline.name == rule.name);
                    let difference = correlation_difference(&calls, &base, RESAMPLES, seeds);
                    (Ok(own), difference.filter(|_| !of_base))
                }
                Err(why) => (Err(why.clone()), None),
            };
            let (name, critic) = (rule.name.clone(), rule.critic.clone());
            Ok(RuleRow { name, critic, agreement, difference })
        };
        let mut rules: Vec<RuleRow> =
            measurement.rules.iter().map(compare).collect::<Result<_, AgreementError>>()?;
        let rank = |row: &RuleRow| match &row.agreement {
            Ok(agreement) => agreement.overall.correlation.unwrap_or(-2.0),
            Err(_) => -3.0,
        };
        // Stable: equal rules keep their order.
        rules.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        Ok(Self { measurement, rules, baseline: baseline.map(|rule| rule.name.clone()) })
    }

    /// The rules that were measured, with their place in the table.
    pub(super) fn measured(&self) -> impl Iterator<Item = (usize, &RuleRow, &RuleAgreement)> {
        let rows = self.rules.iter().enumerate();
        rows.filter_map(|(place, row)| Some((place, row, row.agreement.as_ref().ok()?)))
    }
}

fn credited(calls: &[Call], credit: &[f64]) -> Vec<CreditedCall> {
    assert_eq!(calls.len(), credit.len(), "one number per call");
    let one = |(call, &credit): (&Call, &f64)| CreditedCall {
        task: call.task,
        rollout: call.rollout,
        position: call.position,
        label: call.label.clone(),
        truth: call.truth,
        noise: call.noise,
        credit,
    };
    calls.iter().zip(credit).map(one).collect()
}
