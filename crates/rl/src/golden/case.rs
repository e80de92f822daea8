//! One batch of a golden file: verl's values and their recomputation.

use std::collections::HashMap;

use leyden_core::Family;
use serde_json::Value;

use crate::advantage::{AdvantageConfig, AdvantageInputs};
use crate::aggregate::{Aggregation, AggregationConstant, token_weights, weighted_sum};
use crate::golden::families::Families;
use crate::golden::reader::{Malformed, Node};
use crate::kl::KlEstimator;
use crate::loss::value::{self, ValueConfig, ValueInput};
use crate::loss::{LossConfig, LossInput, LossStatistics};
use crate::needs::Need;
use crate::rows::Rows;

/// verl's divisor of `seq-mean-token-sum-norm`.
const CONSTANT: Option<AggregationConstant> = Some(AggregationConstant::LONGEST);

/// A padded batch.
pub struct Case<'a> {
    node: Node<'a>,
    /// Its name in a report.
    name: String,
    tokens: usize,
    rows: Rows,
    groups: Vec<usize>,
    token_rewards: Vec<f64>,
    logp_old: Vec<f64>,
    logp_new: Vec<f64>,
    logp_ref: Vec<f64>,
    values: Vec<f64>,
    advantage_for_loss: Vec<f64>,
}

impl<'a> Case<'a> {
    pub fn read(node: &Node<'a>) -> Result<Self, Malformed> {
        let rows = node.get("rows")?.count()?;
        let tokens = node.get("tokens")?.count()?;
        let matrix = |key: &str| node.get(key)?.matrix(rows, tokens);
        Ok(Self {
            name: format!("the case with seed {}", node.get("seed")?.value),
            tokens,
            rows: read_rows(node, rows, tokens)?,
            groups: read_groups(&node.get("group")?, rows)?,
            token_rewards: matrix("token_rewards")?,
            logp_old: matrix("logp_old")?,
            logp_new: matrix("logp_new")?,
            logp_ref: matrix("logp_ref")?,
            values: matrix("values")?,
            advantage_for_loss: matrix("advantage_for_loss")?,
            node: node.clone(),
        })
    }

    fn matrix(&self, node: &Node) -> Result<Vec<f64>, Malformed> {
        node.matrix(self.rows.len(), self.tokens)
    }

    /// Largest difference from verl's matrix, over the tokens inside the mask or over all.
    fn difference(&self, ours: &[f64], theirs: &[f64], masked: bool) -> f64 {
        let counts = |t: usize| !masked || self.rows.mask()[t];
        largest((0..ours.len()).filter(|&t| counts(t)).map(|t| ours[t] - theirs[t]))
    }

    /// Advantages and returns of every estimator.
    pub fn check_advantages(&self, families: &mut Families) -> Result<(), Malformed> {
        let rollouts: Vec<usize> = (0..self.rows.len()).collect();
        let scores: Vec<f64> =
            self.rows.ranges().map(|range| self.token_rewards[range].iter().sum()).collect();
        let batch = AdvantageInputs {
            rows: &self.rows,
            scores: &scores,
            groups: &self.groups,
            rollouts: &rollouts,
            token_rewards: Some(&self.token_rewards),
            values: Some(&self.values),
            token_credit: None,
        };
        let returns = self.node.get("returns")?;
        for (name, node) in self.node.get("advantages")?.entries()? {
            let config = AdvantageConfig::of_verl(name)
                .ok_or_else(|| node.malformed("is not a known estimator"))?;
            let family = families.named(&format!("advantage {name}"));
            let ours = config.advantages(&batch);
            if let Some(refusal) = node.refusal() {
                family
                    .agree(ours.is_err(), || format!("{}: verl rejects it: {refusal}", self.name));
                continue;
            }
            let theirs = self.matrix(&node)?;
            let their_returns = self.matrix(&returns.get(name)?)?;
            match ours {
                Ok(ours) => {
                    // verl also whitens GAE outside the mask and leaves returns there; ours are 0.
                    let gae = config.needs().contains(&Need::Critic);
                    let step = !config.compares_groups();
                    let error = self.difference(&ours.per_token, &theirs, gae);
                    self.compare(family, error, "advantages");
                    let error = self.difference(ours.returns(), &their_returns, step);
                    self.compare(family, error, "returns");
                }
                Err(error) => family.agree(false, || format!("{}: {error}", self.name)),
            }
        }
        Ok(())
    }

    fn compare(&self, family: &mut Family, error: f64, what: &str) {
        family.error(error, || format!("{}: {what} differ by {error:.3e}", self.name));
    }

    /// Loss, gradient and metrics of every policy loss.
    pub fn check_policy_losses(&self, families: &mut Families) -> Result<(), Malformed> {
        for (name, node) in self.node.get("policy_loss")?.entries()? {
            let (loss, mode) = name.split_once('/').unwrap_or((name, ""));
            let config =
                LossConfig::of_verl(loss).ok_or_else(|| node.malformed("is not a known loss"))?;
            let mode = read_name(&node, mode, "is not a known aggregation")?;
            // verl ignores the mode of losses on whole rows.
            let mode = Some(mode).filter(|&mode| config.takes_aggregation(mode));
            let mode = mode.unwrap_or_else(|| config.default_aggregation());
            let family = families.named(&format!("loss {name}"));
            let ours = config.loss(&LossInput {
                rows: &self.rows,
                logp_new: &self.logp_new,
                logp_old: &self.logp_old,
                advantages: &self.advantage_for_loss,
                weights: &config.token_weights(mode, CONSTANT, &self.rows),
            });
            let theirs = node.get("loss")?.number()?;
            self.compare(family, (ours.loss - theirs).abs(), "losses");
            let gradient = self.matrix(&node.get("grad_logp_new")?)?;
            self.compare(family, self.difference(&ours.grad, &gradient, false), "gradients");
            for (metric, node) in node.get("metrics")?.entries()? {
                let value = metric_of(&ours.statistics, metric)
                    .ok_or_else(|| node.malformed("is not a known metric"))?;
                self.compare(family, (value - node.number()?).abs(), metric);
            }
        }
        Ok(())
    }

    /// Every KL estimate at all tokens, since verl does not mask them.
    pub fn check_kl(&self, families: &mut Families) -> Result<(), Malformed> {
        for (name, node) in self.node.get("kl")?.entries()? {
            let estimator: KlEstimator = read_name(&node, name, "is not a known estimator")?;
            let pairs = self.logp_new.iter().zip(&self.logp_ref);
            let ours: Vec<f64> = pairs.map(|(&p, &r)| estimator.estimate(p, r).0).collect();
            let error = self.difference(&ours, &self.matrix(&node)?, false);
            self.compare(families.named(&format!("kl {name}")), error, "estimates");
        }
        Ok(())
    }

    /// Aggregates of `advantage_for_loss`, used as a loss.
    pub fn check_aggregates(&self, families: &mut Families) -> Result<(), Malformed> {
        for (name, node) in self.node.get("agg")?.entries()? {
            let mode = read_name(&node, name, "is not a known aggregation")?;
            let weights = token_weights(mode, CONSTANT, &self.rows);
            let ours = weighted_sum(&self.advantage_for_loss, &weights, &self.rows);
            let error = (ours - node.number()?).abs();
            self.compare(families.named(&format!("aggregation {name}")), error, "aggregates");
        }
        Ok(())
    }

    /// The loss of a critic under the token mean.
    pub fn check_value_loss(&self, families: &mut Families) -> Result<(), Malformed> {
        let node = self.node.get("value_loss")?;
        let ours = value::loss(
            &ValueConfig { clip: node.get("cliprange_value")?.number()? },
            &ValueInput {
                rows: &self.rows,
                values_new: &self.matrix(&node.get("vpreds")?)?,
                values_old: &self.values,
                returns: &self.matrix(&node.get("returns")?)?,
                weights: &token_weights(Aggregation::TokenMean, None, &self.rows),
            },
        );
        let family = families.named("value loss");
        self.compare(family, (ours.loss - node.get("loss")?.number()?).abs(), "losses");
        let clipped = node.get("clipfrac")?.number()?;
        self.compare(family, (ours.clip_fraction() - clipped).abs(), "clip fractions");
        Ok(())
    }
}

/// The largest magnitude; NaN exceeds everything.
fn largest(differences: impl Iterator<Item = f64>) -> f64 {
    differences.fold(0.0, |most, d| if d.abs() <= most { most } else { d.abs() })
}

fn read_rows(node: &Node, rows: usize, tokens: usize) -> Result<Rows, Malformed> {
    let mask = node.get("mask")?;
    let flat = mask.matrix(rows, tokens)?;
    if flat.iter().any(|&m| m != 0.0 && m != 1.0) {
        return Err(mask.malformed("has numbers other than 0 and 1"));
    }
    let flat = flat.iter().map(|&m| m == 1.0).collect();
    Rows::new(&vec![tokens; rows], flat).map_err(|error| mask.malformed(format!("fails: {error}")))
}

/// Group names of any kind, numbered in order of first appearance.
fn read_groups(node: &Node, rows: usize) -> Result<Vec<usize>, Malformed> {
    let mut numbers = HashMap::new();
    let names = node.items_exactly(rows)?;
    Ok(names
        .iter()
        .map(|name| {
            let next = numbers.len();
            *numbers.entry(name.value.to_string()).or_insert(next)
        })
        .collect())
}

/// Parses a name with serde.
fn read_name<T: serde::de::DeserializeOwned>(
    node: &Node,
    name: &str,
    otherwise: &str,
) -> Result<T, Malformed> {
    serde_json::from_value(Value::from(name)).map_err(|_| node.malformed(otherwise))
}

/// The metric that verl calls `name`.
fn metric_of(statistics: &LossStatistics, name: &str) -> Option<f64> {
    match name {
        "actor/pg_clipfrac" => Some(statistics.clip_fraction()),
        "actor/pg_clipfrac_lower" => Some(statistics.clip_fraction_lower()),
        "actor/ppo_kl" => Some(statistics.kl()),
        _ => None,
    }
}
