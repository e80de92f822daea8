//! Scores Calc-X predictions: accuracy by source, and kinds of failures.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use leyden_calcx::CalcxScorer;
use leyden_calcx::scorer::{Verdict, judge};
use leyden_core::Task;
use leyden_stats::wilson_interval;
use serde::Serialize;

use crate::predictions::answers::{self, Answer};
use crate::predictions::{Files, Gold, Scored};
use crate::registry::Registry;
use crate::table::{Side, aligned};

/// Scores a file of predictions: lines of `id` and `answer`, or one answer per line.
///
/// # Errors
/// Files that cannot be read, predictions that do not match the questions.
pub fn score(files: &Files, registry: &Registry) -> Result<Scored> {
    files.default_reward_only()?;
    let (gold, answers) = if answers::are_named(&files.pred)? {
        files.named(registry, "calc", None)?
    } else {
        files.in_order()?;
        let gold = Gold::read(registry, "calc", &files.gold, None)?;
        let answers = answers::in_order(&files.pred, &gold)?;
        (gold, answers)
    };
    let evaluation = Evaluation::of(&gold.read.tasks, &answers);
    Scored::with_rewards(&evaluation.to_string(), &evaluation, &CalcxScorer, &gold, &answers)
}

/// Counts of verdicts over some questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Counts {
    pub questions: usize,
    pub right: usize,
    pub wrong: usize,
    /// Answers that are neither a number nor a letter.
    pub not_evaluable: usize,
    pub unanswered: usize,
    pub accuracy: f64,
    /// Bounds of the 95 % Wilson interval of the accuracy.
    pub low: f64,
    pub high: f64,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        self.questions += 1;
        *match verdict {
            Verdict::Right => &mut self.right,
            Verdict::Wrong => &mut self.wrong,
            Verdict::NotEvaluable => &mut self.not_evaluable,
            Verdict::Unanswered => &mut self.unanswered,
        } += 1;
    }

    fn with_shares(mut self) -> Self {
        if let Some(interval) = wilson_interval(self.right, self.questions) {
            self.accuracy = self.right as f64 / self.questions as f64;
            (self.low, self.high) = (interval.low, interval.high);
        }
        self
    }
}

/// The whole table.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Evaluation {
    #[serde(flatten)]
    pub all: Counts,
    pub by_source: BTreeMap<String, Counts>,
}

impl Evaluation {
    fn of(tasks: &[Task], answers: &[Answer]) -> Self {
        let mut all = Counts::default();
        let mut by_source: BTreeMap<String, Counts> = BTreeMap::new();
        for (task, answer) in tasks.iter().zip(answers) {
            let verdict = judge(answer.text.as_deref(), &task.gold);
            all.add(verdict);
            if let Some(source) = task.label("source") {
                by_source.entry(source.to_owned()).or_default().add(verdict);
            }
        }
        let by_source =
            by_source.into_iter().map(|(source, counts)| (source, counts.with_shares())).collect();
        Self { all: all.with_shares(), by_source }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "questions", "right", "wrong", "not evaluable", "unanswered", "accuracy"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let several = self.by_source.len() > 1;
        let sources = self.by_source.iter().filter(|_| several);
        for (name, c) in sources.map(|(name, c)| (name.as_str(), c)).chain([("all", &self.all)]) {
            let counts = [c.questions, c.right, c.wrong, c.not_evaluable, c.unanswered];
            let accuracy = format!("{:.3} [{:.3}, {:.3}]", c.accuracy, c.low, c.high);
            let row = [name.to_owned()].into_iter().chain(counts.map(|n| n.to_string()));
            rows.push(row.chain([accuracy]).collect());
        }
        let right = Side::Right;
        f.write_str(&aligned(&rows, &[Side::Left, right, right, right, right, right, right]))
    }
}
