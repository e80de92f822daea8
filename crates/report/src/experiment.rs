//! Groups of runs: one experiment under several seeds.
//!
//! Runs are seeds of one experiment if their configurations differ only in the seed and in
//! incidental keys. Runs of equal name whose configurations otherwise differ are different
//! experiments, labelled by the differing keys, so that a changed learning rate is never
//! averaged away as if it were a seed.

use std::collections::BTreeMap;

use crate::chart::Point;
use crate::interval::{Estimate, items, over_items, over_seeds};
use crate::run::Run;
use leyden_core::record::{EvalRecord, StepRecord};

/// Keys that do not distinguish experiments.
const INCIDENTAL: [&str; 3] = ["seed", "run.seed", "model.threads"];

/// One experiment: its runs, one per seed.
#[derive(Debug, Clone)]
pub struct RunGroup<'a> {
    pub name: String,
    pub runs: Vec<&'a Run>,
}

/// Groups runs into experiments, in order of first appearance.
pub fn group(runs: &[Run]) -> Vec<RunGroup<'_>> {
    let mut groups: Vec<(BTreeMap<String, String>, Vec<&Run>)> = Vec::new();
    for run in runs {
        let keys = flatten(&run.config);
        let same = |other: &(BTreeMap<String, String>, Vec<&Run>)| {
            other.1[0].name == run.name && essential(&other.0) == essential(&keys)
        };
        match groups.iter().position(same) {
            Some(index) => groups[index].1.push(run),
            None => groups.push((keys, vec![run])),
        }
    }
    let names: Vec<String> = (0..groups.len()).map(|index| name(&groups, index)).collect();
    names.into_iter().zip(groups).map(|(name, (_, runs))| RunGroup { name, runs }).collect()
}

/// The run's name, followed by the distinguishing values if other experiments share it.
fn name(groups: &[(BTreeMap<String, String>, Vec<&Run>)], index: usize) -> String {
    let (keys, runs) = &groups[index];
    let name = &runs[0].name;
    let namesakes: Vec<_> = groups.iter().filter(|(_, others)| others[0].name == *name).collect();
    let keys_that_differ: std::collections::BTreeSet<&String> = namesakes
        .iter()
        .flat_map(|(other, _)| other.keys())
        .filter(|key| !incidental(key))
        .filter(|key| namesakes.iter().any(|(other, _)| other.get(*key) != keys.get(*key)))
        .collect();
    // The last part of a key suffices if no other differing key ends the same way.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let short = |key: &str| {
        let alike = keys_that_differ.iter().filter(|other| last(other) == last(key)).count();
        if alike == 1 { last(key) } else { key.to_owned() }
    };
    let differing: Vec<String> = keys_that_differ
        .iter()
        .map(|key| {
            let value = keys.get(*key).map_or("unset", String::as_str);
            format!("{} = {value}", short(key))
        })
        .collect();
    if differing.is_empty() { name.clone() } else { format!("{name} ({})", differing.join(", ")) }
}

/// A configuration as dotted keys and values.
pub(crate) fn flatten(table: &toml::Table) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
        match value.as_table() {
            Some(table) => {
                for (key, value) in table {
                    walk(&format!("{prefix}.{key}"), value, out);
                }
            }
            None => {
                out.insert(prefix.to_owned(), value.to_string());
            }
        }
    }
    let mut out = BTreeMap::new();
    for (key, value) in table {
        walk(key, value, &mut out);
    }
    out
}

fn incidental(key: &str) -> bool {
    INCIDENTAL.contains(&key)
}

fn essential(keys: &BTreeMap<String, String>) -> BTreeMap<&String, &String> {
    keys.iter().filter(|(key, _)| !incidental(key)).collect()
}

impl RunGroup<'_> {
    /// The name of the agent, empty in configurations without one.
    pub fn agent(&self) -> &str {
        let table = self.runs.first().and_then(|run| run.config.get("agent"));
        table.and_then(|agent| agent.get("name")).and_then(toml::Value::as_str).unwrap_or_default()
    }

    /// Pairs of runs of equal seed: the second is a repetition, not independent evidence.
    pub fn repetitions(&self) -> Vec<(&Run, &Run)> {
        let mut found = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            let earlier =
                self.runs[..index].iter().find(|e| e.seed.is_some() && e.seed == run.seed);
            found.extend(earlier.map(|earlier| (*earlier, *run)));
        }
        found
    }

    /// Per run: the value of `figure` at each training step.
    pub fn step_curves(&self, figure: impl Fn(&StepRecord) -> f64) -> Vec<Vec<Point>> {
        self.runs
            .iter()
            .map(|run| {
                run.steps.iter().map(|step| Point::new(step.step as f64, figure(step))).collect()
            })
            .collect()
    }

    /// True if every recorded test reward is between 0 and 1.
    pub fn rewards_are_shares(&self) -> bool {
        let evals = self.runs.iter().flat_map(|run| &run.evals);
        evals
            .flat_map(|eval| eval.rewards.iter().filter_map(|(_, reward)| *reward))
            .all(|reward| (0.0..=1.0).contains(&reward))
    }

    /// Per run: mean test reward of one mode, with its interval over items.
    pub fn reward_curves(&self, mode: &str) -> Vec<Vec<Point>> {
        self.eval_curves(mode, reward_of)
    }

    /// Per run: mean reward at one value of a label.
    pub fn label_curves(&self, mode: &str, label: &str, value: &str) -> Vec<Vec<Point>> {
        self.eval_curves(mode, |eval| label_of(eval, label, value))
    }

    fn eval_curves(
        &self,
        mode: &str,
        figure: impl Fn(&EvalRecord) -> Option<Estimate>,
    ) -> Vec<Vec<Point>> {
        let curve = |run: &&Run| {
            run.evals(mode)
                .filter_map(|eval| {
                    let estimate = figure(eval)?;
                    Some(Point {
                        x: eval.step as f64,
                        y: estimate.mean,
                        interval: estimate.interval,
                    })
                })
                .collect()
        };
        self.runs.iter().map(curve).collect()
    }

    /// Labels of the evaluations with their values, numbers in numerical order.
    pub fn labels(&self) -> Vec<(String, Vec<String>)> {
        let mut found: BTreeMap<&String, std::collections::BTreeSet<&String>> = BTreeMap::new();
        for eval in self.runs.iter().flat_map(|run| &run.evals) {
            for (label, values) in &eval.by_label {
                found.entry(label).or_default().extend(values.keys());
            }
        }
        let rank = |value: &str| value.parse::<f64>().unwrap_or(f64::INFINITY);
        found
            .into_iter()
            .map(|(label, values)| {
                let mut values: Vec<String> = values.into_iter().cloned().collect();
                values.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then_with(|| a.cmp(b)));
                (label.clone(), values)
            })
            .collect()
    }
}

/// Mean test reward, as recorded, with its interval over items.
pub(crate) fn reward_of(eval: &EvalRecord) -> Option<Estimate> {
    let values: Vec<f64> = items(&eval.rewards).into_iter().map(|(_, reward)| reward).collect();
    let interval = if values.is_empty() { None } else { over_items(&values).interval };
    let known = eval.reward_mean.is_finite() && (!values.is_empty() || eval.rewards.is_empty());
    known.then_some(Estimate { mean: eval.reward_mean, interval, n: values.len() })
}

/// Mean reward at one value of a label. Its items are not recorded individually, so there is an
/// interval only where rewards are 0 or 1 and the mean is a sufficient statistic.
pub(crate) fn label_of(eval: &EvalRecord, label: &str, value: &str) -> Option<Estimate> {
    let (mean, n) = *eval.by_label.get(label)?.get(value)?;
    let binary = eval.rewards.iter().flat_map(|(_, reward)| reward).all(|r| *r == 0.0 || *r == 1.0);
    let interval = if binary { crate::interval::wilson(mean, n) } else { None };
    (n > 0 && mean.is_finite()).then_some(Estimate { mean, interval, n })
}

/// Mean over seeds with its interval, at the steps that every seed has reached. A single curve is
/// returned unchanged, with its own intervals.
pub fn across(curves: &[Vec<Point>]) -> Vec<Point> {
    let [first, others @ ..] = curves else { return Vec::new() };
    if others.is_empty() {
        return first.clone();
    }
    let at = |curve: &[Point], x: f64| curve.iter().find(|point| point.x == x).map(|p| p.y);
    first
        .iter()
        .filter_map(|point| {
            let mut values = vec![point.y];
            for curve in others {
                values.push(at(curve, point.x)?);
            }
            let estimate = over_seeds(&values);
            Some(Point { x: point.x, y: estimate.mean, interval: estimate.interval })
        })
        .collect()
}
