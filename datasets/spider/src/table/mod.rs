//! The official evaluator's table: execution, exact match and partial scores by hardness.
//!
//! Accuracy of a part is its share of agreement among predictions with such a part, recall among
//! references with one, and F1 their harmonic mean, or 1 if both are 0: the official averages,
//! including that quirk, so that tables are comparable.

mod read;

use std::fmt::Write;

use rayon::prelude::*;
use serde::Serialize;

use crate::clauses::{Clause, compare};
use crate::exact::PARTS;
use crate::execution::{ExecutionError, judge};
use crate::hardness::Hardness;
use crate::spider::{MatchError, Matched, Spider};

pub use read::{ReadError, read_gold, read_predictions};

/// A reference query and its database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gold {
    pub query: String,
    pub database: String,
    /// The question's id, if it has one.
    pub id: Option<String>,
}

/// Averages over the questions of one level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    /// `easy` to `extra`, `all`.
    pub name: &'static str,
    pub count: usize,
    pub execution: f64,
    pub exact_match: f64,
    pub parts: Vec<PartScores>,
}

/// Averages of one part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartScores {
    pub name: &'static str,
    pub accuracy: f64,
    pub recall: f64,
    pub f1: f64,
}

/// A question that is excluded from the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unscored {
    /// Its number in the files, from 1.
    pub number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub database: String,
    pub why: String,
}

/// Scores of one prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its number in the files, from 1.
    pub number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub hardness: Hardness,
    pub execution: bool,
    pub exact_match: bool,
    /// Whether the evaluator's parser accepts the prediction.
    pub parsed: bool,
    /// For a prediction that it rejects but SQLite's grammar accepts: the clauses that differ from
    /// the reference's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differing: Option<Vec<&'static str>>,
}

/// The whole evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// By hardness, then all.
    pub levels: Vec<Level>,
    pub rows: Vec<Row>,
    /// Questions whose reference does not run or parse, excluded from all averages.
    pub unscored: Vec<Unscored>,
}

/// Evaluates predictions in the order of their references.
pub fn evaluate(spider: &Spider, gold: &[Gold], predictions: &[String]) -> Evaluation {
    let pairs: Vec<(&Gold, &String)> = gold.iter().zip(predictions).collect();
    let scored: Vec<Result<(bool, Matched), String>> =
        pairs.par_iter().map(|(gold, predicted)| score(spider, gold, predicted)).collect();
    let mut sums: Vec<Sums> = (0..=Hardness::ALL.len()).map(|_| Sums::default()).collect();
    let (mut rows, mut unscored) = (Vec::new(), Vec::new());
    for (index, (scored, (gold, predicted))) in scored.into_iter().zip(&pairs).enumerate() {
        let (number, id) = (index + 1, gold.id.clone());
        match scored {
            Ok((execution, matched)) => {
                let hardness = matched.hardness;
                sums[hardness as usize].add(execution, &matched);
                sums[Hardness::ALL.len()].add(execution, &matched);
                let (exact_match, parsed) = (matched.exact.matches, matched.parsed);
                let differing = if parsed { None } else { differing(&gold.query, predicted) };
                rows.push(Row { number, id, hardness, execution, exact_match, parsed, differing });
            }
            Err(why) => {
                unscored.push(Unscored { number, id, database: gold.database.clone(), why });
            }
        }
    }
    let names = Hardness::ALL.iter().map(|level| level.name()).chain(["all"]);
    let levels = names.zip(&sums).map(|(name, sums)| sums.level(name)).collect();
    Evaluation { levels, rows, unscored }
}

fn score(spider: &Spider, gold: &Gold, predicted: &str) -> Result<(bool, Matched), String> {
    let message = |error: ExecutionError| error.to_string();
    let database = spider.databases().get(&gold.database).map_err(|error| message(error.into()))?;
    let matched = spider
        .compare(&gold.database, &gold.query, predicted)
        .map_err(|error: MatchError| error.to_string())?;
    let verdict = judge(&database, &gold.query, predicted).map_err(message)?;
    Ok((verdict.matches(), matched))
}

fn differing(gold: &str, predicted: &str) -> Option<Vec<&'static str>> {
    let compared = compare(gold, predicted).ok()?;
    Some(compared.differing.into_iter().map(Clause::name).collect())
}

/// Counts of one level.
#[derive(Default)]
struct Sums {
    count: usize,
    execution: usize,
    exact: usize,
    /// Counts by part.
    parts: [PartSums; 10],
}

#[derive(Default, Clone, Copy)]
struct PartSums {
    predicted: usize,
    predicted_right: usize,
    gold: usize,
    gold_right: usize,
}

impl Sums {
    fn add(&mut self, execution: bool, matched: &Matched) {
        self.count += 1;
        self.execution += usize::from(execution);
        self.exact += usize::from(matched.exact.matches);
        for (sums, part) in self.parts.iter_mut().zip(&matched.exact.parts) {
            let right = usize::from(part.agrees);
            if part.predicted > 0 {
                sums.predicted += 1;
                sums.predicted_right += right;
            }
            if part.gold > 0 {
                sums.gold += 1;
                sums.gold_right += right;
            }
        }
    }

    fn level(&self, name: &'static str) -> Level {
        let parts = PARTS.iter().zip(&self.parts).map(|(&name, sums)| {
            let accuracy = share(sums.predicted_right, sums.predicted);
            let recall = share(sums.gold_right, sums.gold);
            // An empty level is 0 throughout in the official table.
            let f1 = if self.count == 0 {
                0.0
            } else if accuracy == 0.0 && recall == 0.0 {
                1.0
            } else {
                2.0 * accuracy * recall / (accuracy + recall)
            };
            PartScores { name, accuracy, recall, f1 }
        });
        Level {
            name,
            count: self.count,
            execution: share(self.execution, self.count),
            exact_match: share(self.exact, self.count),
            parts: parts.collect(),
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Evaluation {
    /// The table in the layout of the official program, followed by the unscored questions.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, cell: &dyn Fn(&Level) -> String| {
            let cells: Vec<String> =
                self.levels.iter().map(|level| format!("{:20}", cell(level))).collect();
            let _ = writeln!(text, "{}", format!("{name:20} {}", cells.join(" ")).trim_end());
        };
        let number = |value: f64| format!("{value:.3}");
        row("", &|level| level.name.to_owned());
        row("count", &|level| level.count.to_string());
        row("==== EXECUTION ACCURACY", &|_| String::new());
        row("execution", &|level| number(level.execution));
        row("==== EXACT MATCHING ACCURACY", &|_| String::new());
        row("exact match", &|level| number(level.exact_match));
        type Column = (&'static str, fn(&PartScores) -> f64);
        let columns: [Column; 3] = [
            ("---- PARTIAL MATCHING ACCURACY", |part| part.accuracy),
            ("---- PARTIAL MATCHING RECALL", |part| part.recall),
            ("---- PARTIAL MATCHING F1", |part| part.f1),
        ];
        for (title, value) in columns {
            row(title, &|_| String::new());
            for (place, name) in PARTS.iter().enumerate() {
                row(name, &|level| number(value(&level.parts[place])));
            }
        }
        if !self.unscored.is_empty() {
            let _ = writeln!(text, "\nnot scored: {}", self.unscored.len());
            for unscored in &self.unscored {
                let id = unscored.id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
                let _ = writeln!(text, "  question {}{id}: {}", unscored.number, unscored.why);
            }
        }
        text
    }

    /// Levels, rows and unscored questions as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "levels": self.levels,
            "rows": self.rows,
            "unscored": self.unscored,
        })
    }
}
