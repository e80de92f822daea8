//! The report of measured credit rules: how well the credit of each agrees with the true advantages
//! of the same calls ([`leyden_stats::credit`]).

mod charts;
mod tables;

use std::path::Path;

use leyden_core::SeedTree;
use leyden_stats::credit::{AgreementError, CreditedCall, RuleAgreement, agreement};
use serde::Serialize;
use serde_json::{Value, json};

use crate::chart::Chart;
use crate::error::ReportError;
use crate::svg::{Theme, render};
use crate::write::Folder;

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
}

/// The measured rules, those of the highest correlation first.
#[derive(Debug, Clone, PartialEq)]
pub struct CreditReport<'a> {
    measurement: &'a Measurement,
    pub rules: Vec<RuleRow>,
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
        let compare = |rule: &Rule| {
            let agreement = match &rule.credit {
                Ok(credit) => {
                    Ok(agreement(&credited(&measurement.calls, credit), RESAMPLES, seeds)?)
                }
                Err(why) => Err(why.clone()),
            };
            Ok(RuleRow { name: rule.name.clone(), critic: rule.critic.clone(), agreement })
        };
        let mut rules: Vec<RuleRow> =
            measurement.rules.iter().map(compare).collect::<Result<_, AgreementError>>()?;
        let rank = |row: &RuleRow| match &row.agreement {
            Ok(agreement) => agreement.overall.correlation.unwrap_or(-2.0),
            Err(_) => -3.0,
        };
        // Stable: equal rules keep their order.
        rules.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        Ok(Self { measurement, rules })
    }

    /// The rules that were measured, with their place in the table.
    fn measured(&self) -> impl Iterator<Item = (usize, &RuleRow, &RuleAgreement)> {
        let rows = self.rules.iter().enumerate();
        rows.filter_map(|(place, row)| Some((place, row, row.agreement.as_ref().ok()?)))
    }

    /// The tables, as Markdown.
    pub fn markdown(&self) -> String {
        tables::markdown(self)
    }

    /// Writes `credit.md`, `credit.csv` (one line per rule and call), `credit.json`, and the charts
    /// as `credit.svg` and `credit.png` into `folder`, which is created if missing.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let mut files = Folder::create(folder)?;
        let charts: Vec<Chart> = charts::charts(self);
        if !charts.is_empty() {
            files.put_drawing("credit", &render(&charts, 1, Theme::Paper, "credit"))?;
        }
        let picture = if charts.is_empty() { "" } else { "\n![charts](credit.svg)\n" };
        files.put("credit.md", format!("{}{picture}", self.markdown()).as_bytes())?;
        files.put("credit.csv", tables::csv(self.measurement).as_bytes())?;
        files.put("credit.json", format!("{:#}\n", self.json()).as_bytes())?;
        Ok(())
    }

    fn json(&self) -> Value {
        let own = self.measurement;
        let rule = |row: &RuleRow| {
            let mut value = json!({ "name": row.name });
            if let Some(critic) = &row.critic {
                value["critic"] = json!(critic);
            }
            match &row.agreement {
                Ok(agreement) => value["agreement"] = json!(agreement),
                Err(why) => value["not_measured"] = json!(why),
            }
            value
        };
        json!({
            "title": own.title,
            "about": own.about,
            "label": own.label,
            "settings": own.settings,
            "counts": own.counts,
            "rules": self.rules.iter().map(rule).collect::<Vec<_>>(),
            "provenance": own.provenance,
        })
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
