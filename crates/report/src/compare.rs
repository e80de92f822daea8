//! Comparison of two runs on the same test items.
//!
//! Items differ far more than runs do, so two runs are compared item by item: an item's
//! difficulty cancels in the difference. This requires the same items on both sides. A mismatch
//! is an error that names the items, because a difference over other items would look the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use leyden_core::record::EvalRecord;
use leyden_stats::{McNemar, mcnemar};
use thiserror::Error;

use crate::error::ReportError;
use crate::interval::{Estimate, items, paired};
use crate::items::{self as stored, Item};
use crate::run::Run;
use crate::table::{cell, change_words};

/// With fewer items a bootstrap interval is meaningless.
const FEWEST_ITEMS: usize = 10;
/// Maximum number of ids listed in a message.
const MAX_LISTED: usize = 5;

/// Why two runs cannot be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("{}: the run has no {mode} evaluation{}", path.display(), others(.found))]
    NoEvaluation { path: PathBuf, mode: String, found: Vec<String> },
    #[error(
        "{} and {} have no evaluation mode in common: the first has {}, the second {}",
        a.display(),
        b.display(),
        list(found_a),
        list(found_b)
    )]
    NoCommonMode { a: PathBuf, b: PathBuf, found_a: Vec<String>, found_b: Vec<String> },
    #[error(
        "the test items differ, so the runs cannot be compared item by item: {}",
        differing(only_a, only_b, a, b)
    )]
    Items { a: PathBuf, b: PathBuf, only_a: Vec<String>, only_b: Vec<String> },
    #[error(
        "the test items differ, so the runs cannot be compared item by item: of {count} ids, the \
         first {id}, {what} is not the same on both sides"
    )]
    Question { id: String, what: &'static str, count: usize },
    #[error("none of the {items} test items has a reward on both sides")]
    NoRewards { items: usize },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(" and ") }
}

fn others(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(", only {}", found.join(" and ")) }
}

fn differing(only_a: &[String], only_b: &[String], a: &PathBuf, b: &PathBuf) -> String {
    let side = |ids: &[String], path: &PathBuf| {
        (!ids.is_empty())
            .then(|| format!("{} only in {} ({})", ids.len(), path.display(), named(ids)))
    };
    let sides: Vec<String> = [side(only_a, a), side(only_b, b)].into_iter().flatten().collect();
    sides.join("; ")
}

/// The first ids, and whether there are more.
fn named(ids: &[String]) -> String {
    let more = if ids.len() > MAX_LISTED { ", …" } else { "" };
    format!("{}{more}", ids[..ids.len().min(MAX_LISTED)].join(", "))
}

/// One of the two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    pub name: String,
    pub folder: PathBuf,
    /// The step of its last evaluation.
    pub step: u64,
    /// Mean reward of the items compared.
    pub mean: f64,
}

/// All items, or those with one value of a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// `all`, or a label with its value.
    pub name: String,
    pub a: f64,
    pub b: f64,
    /// Mean of `b − a`, with an interval where per-item rewards are available.
    pub difference: Estimate,
    /// Items on which the second run scored higher, lower, the same; `None` without per-item
    /// rewards.
    pub counts: Option<(usize, usize, usize)>,
}

/// Result of comparing a second run with a first.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub mode: String,
    pub a: Side,
    pub b: Side,
    /// All items first, then one slice per value of each label.
    pub slices: Vec<Slice>,
    /// Ids on which the second run scored higher, and lower.
    pub won: Vec<String>,
    pub lost: Vec<String>,
    /// Ids that lack a reward on one side and are excluded.
    pub left_out: Vec<String>,
    /// McNemar's test, if every reward is 0 or 1.
    pub test: Option<McNemar>,
    /// Whether questions were compared as well as ids.
    pub questions_known: bool,
}

/// Compares the last evaluations of two runs, in `mode` or in the first mode that both have.
///
/// # Errors
/// [`CompareError`] if there is no such evaluation, the items differ, or no item has a reward on
/// both sides.
pub fn compare(a: &Run, b: &Run, mode: Option<&str>) -> Result<Comparison, CompareError> {
    let mode = common_mode(a, b, mode)?;
    let (last_a, last_b) = (last(a, &mode)?, last(b, &mode)?);
    same_ids(a, b, last_a, last_b)?;
    let stored_a = stored::read(&a.folder.join("rollouts.sqlite"), last_a.step, &mode)?;
    let stored_b = stored::read(&b.folder.join("rollouts.sqlite"), last_b.step, &mode)?;
    same_questions(&stored_a, &stored_b)?;

    let ids: BTreeSet<&String> = last_a.rewards.iter().map(|(id, _)| id).collect();
    let pairs = pairs(last_a, last_b);
    if pairs.is_empty() {
        return Err(CompareError::NoRewards { items: ids.len() });
    }
    let known: BTreeSet<&str> = pairs.iter().map(|pair| pair.id.as_str()).collect();
    let left_out = ids.into_iter().filter(|id| !known.contains(id.as_str())).cloned().collect();
    let all = slice("all".to_owned(), &pairs.iter().collect::<Vec<_>>());
    let binary = pairs.iter().flat_map(|p| [p.a, p.b]).all(|r| r == 0.0 || r == 1.0);
    let right = |of: fn(&Pair) -> f64| pairs.iter().map(|p| of(p) == 1.0).collect::<Vec<bool>>();
    let test = binary.then(|| mcnemar(&right(|p| p.a), &right(|p| p.b)).ok()).flatten();
    let chosen = |wanted: fn(&Pair) -> bool| {
        pairs.iter().filter(|p| wanted(p)).map(|p| p.id.clone()).collect::<Vec<String>>()
    };
    let (won, lost) = (chosen(|p| p.b > p.a), chosen(|p| p.b < p.a));
    let mut slices = vec![all];
    slices.extend(labels(&pairs, &stored_b, last_a, last_b));
    Ok(Comparison {
        mode,
        a: side(a, last_a, slices[0].a),
        b: side(b, last_b, slices[0].b),
        won,
        lost,
        left_out,
        test,
        questions_known: !stored_a.is_empty() && !stored_b.is_empty(),
        slices,
    })
}

fn side(run: &Run, eval: &EvalRecord, mean: f64) -> Side {
    let name = format!("{}, {}", run.name, run.seed_label());
    Side { name, folder: run.folder.clone(), step: eval.step, mean }
}

fn modes(run: &Run) -> Vec<String> {
    let found = |mode: &&str| run.evals(mode).next().is_some();
    ["sampled", "greedy"].into_iter().filter(found).map(str::to_owned).collect()
}

fn common_mode(a: &Run, b: &Run, wanted: Option<&str>) -> Result<String, CompareError> {
    if let Some(mode) = wanted {
        return Ok(mode.to_owned());
    }
    let (found_a, found_b) = (modes(a), modes(b));
    match found_a.iter().find(|mode| found_b.contains(mode)) {
        Some(mode) => Ok(mode.clone()),
        None => Err(CompareError::NoCommonMode {
            a: a.folder.clone(),
            b: b.folder.clone(),
            found_a,
            found_b,
        }),
    }
}

fn last<'a>(run: &'a Run, mode: &str) -> Result<&'a EvalRecord, CompareError> {
    run.evals(mode).last().ok_or_else(|| CompareError::NoEvaluation {
        path: run.folder.clone(),
        mode: mode.to_owned(),
        found: modes(run),
    })
}

fn same_ids(a: &Run, b: &Run, of_a: &EvalRecord, of_b: &EvalRecord) -> Result<(), CompareError> {
    let ids = |eval: &EvalRecord| -> BTreeSet<String> {
        eval.rewards.iter().map(|(id, _)| id.clone()).collect()
    };
    let (ids_a, ids_b) = (ids(of_a), ids(of_b));
    if ids_a == ids_b {
        return Ok(());
    }
    Err(CompareError::Items {
        a: a.folder.clone(),
        b: b.folder.clone(),
        only_a: ids_a.difference(&ids_b).cloned().collect(),
        only_b: ids_b.difference(&ids_a).cloned().collect(),
    })
}

fn same_questions(
    a: &BTreeMap<String, Item>,
    b: &BTreeMap<String, Item>,
) -> Result<(), CompareError> {
    let common = || a.iter().filter_map(|(id, item)| Some((id, item, b.get(id)?)));
    for (what, text) in [
        ("the question", (|item| &item.question) as fn(&Item) -> &String),
        ("the reference answer", |item| &item.gold),
    ] {
        let mut other = common().filter(|(_, a, b)| text(a) != text(b)).map(|(id, _, _)| id);
        if let Some(id) = other.next() {
            let count = 1 + other.count();
            return Err(CompareError::Question { id: id.clone(), what, count });
        }
    }
    Ok(())
}

/// One item's rewards, averaged over its rollouts.
struct Pair {
    id: String,
    a: f64,
    b: f64,
}

/// The items with a reward on both sides, in the order of the second.
fn pairs(a: &EvalRecord, b: &EvalRecord) -> Vec<Pair> {
    let first: BTreeMap<&str, f64> = items(&a.rewards).into_iter().collect();
    items(&b.rewards)
        .into_iter()
        .filter_map(|(id, b)| Some(Pair { id: id.to_owned(), a: *first.get(id)?, b }))
        .collect()
}

fn slice(name: String, pairs: &[&Pair]) -> Slice {
    let rewards = |of: fn(&Pair) -> f64| -> Vec<(String, Option<f64>)> {
        pairs.iter().map(|pair| (pair.id.clone(), Some(of(pair)))).collect()
    };
    let mean = |of: fn(&Pair) -> f64| {
        pairs.iter().map(|pair| of(pair)).sum::<f64>() / pairs.len().max(1) as f64
    };
    let (a, b) = (mean(|pair| pair.a), mean(|pair| pair.b));
    let no_interval = Estimate { mean: b - a, interval: None, n: pairs.len() };
    let difference = match paired(&rewards(|pair| pair.a), &rewards(|pair| pair.b)) {
        Some(difference) if pairs.len() >= FEWEST_ITEMS => difference,
        _ => no_interval,
    };
    let count = |wanted: fn(&Pair) -> bool| pairs.iter().filter(|pair| wanted(pair)).count();
    let counts = (count(|p| p.b > p.a), count(|p| p.b < p.a), count(|p| p.b == p.a));
    Slice { name, a, b, difference, counts: Some(counts) }
}

/// The slices by label: per item where the stored rollouts have labels, else the recorded means.
fn labels(
    pairs: &[Pair],
    stored: &BTreeMap<String, Item>,
    a: &EvalRecord,
    b: &EvalRecord,
) -> Vec<Slice> {
    let mut by_value: BTreeMap<(&str, &str), Vec<&Pair>> = BTreeMap::new();
    for pair in pairs {
        let own = stored.get(&pair.id).into_iter().flat_map(|item| &item.labels);
        for (label, value) in own {
            by_value.entry((label, value)).or_default().push(pair);
        }
    }
    let name = |label: &str, value: &str| format!("{label} = {value}");
    if !by_value.is_empty() {
        return by_value
            .into_iter()
            .map(|((label, value), pairs)| slice(name(label, value), &pairs))
            .collect();
    }
    let mut found = Vec::new();
    for (label, values) in &b.by_label {
        for (value, (mean_b, n)) in values {
            // Means over different numbers of items cover different items.
            let before = a.by_label.get(label).and_then(|values| values.get(value));
            let Some((mean_a, _)) = before.filter(|(_, before)| before == n && *n > 0) else {
                continue;
            };
            let difference = Estimate { mean: mean_b - mean_a, interval: None, n: *n };
            let (a, b) = (*mean_a, *mean_b);
            found.push(Slice { name: name(label, value), a, b, difference, counts: None });
        }
    }
    found
}

impl Comparison {
    /// The conclusion, in one sentence.
    pub fn verdict(&self) -> String {
        let difference = &self.slices[0].difference;
        let Some((low, high)) = difference.interval else {
            return format!(
                "no verdict: {} items are too few for an interval; the means differ by {:+.3}",
                difference.n, difference.mean
            );
        };
        // Require both: the bootstrap interval is too narrow when disagreements are rare.
        let by_chance = self.test.is_some_and(|test| test.p_value > 0.05);
        let words = if low > 0.0 && !by_chance {
            "the second run scores higher on these items"
        } else if high < 0.0 && !by_chance {
            "the second run scores lower on these items"
        } else {
            "no difference shown on these items, which is not equality"
        };
        format!("{words}: {}", change_words(Some(difference)))
    }

    /// The comparison as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for (place, side) in [("first", &self.a), ("second", &self.b)] {
            let _ = writeln!(
                out,
                "{place}: {} ({}), {} evaluation after step {}",
                cell(&side.name),
                side.folder.display(),
                self.mode,
                side.step
            );
        }
        out.push_str(
            "\n| items | n | first | second | difference | won | lost | tied |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for slice in &self.slices {
            let counts = match slice.counts {
                Some((won, lost, tied)) => format!("{won} | {lost} | {tied}"),
                None => "– | – | –".to_owned(),
            };
            let _ = writeln!(
                out,
                "| {} | {} | {:.3} | {:.3} | {} | {counts} |",
                cell(&slice.name),
                slice.difference.n,
                slice.a,
                slice.b,
                change_words(Some(&slice.difference)),
            );
        }
        let _ = writeln!(out, "\nVerdict: {}.", self.verdict());
        if let Some(test) = self.test {
            let _ = writeln!(out, "McNemar's exact test: p = {:.3}.", test.p_value);
        }
        for (word, ids) in [("won", &self.won), ("lost", &self.lost)] {
            if !ids.is_empty() {
                let _ = writeln!(out, "Items {word}: {}.", cell(&named(ids)));
            }
        }
        if !self.left_out.is_empty() {
            let _ = writeln!(
                out,
                "Left out, without a reward on one side: {} ({}).",
                self.left_out.len(),
                cell(&named(&self.left_out))
            );
        }
        if !self.questions_known {
            out.push_str(
                "The items were compared by id only: at least one run kept no rollouts.\n",
            );
        }
        out.push_str(
            "Differences are second less first, with 95 % paired bootstrap intervals over the \
             items; they do not cover variation over seeds.\n",
        );
        out
    }
}
