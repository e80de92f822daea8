//! Scores MuSiQue answers by number of hops, without supporting paragraphs.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use leyden_core::{ScoreError, Scorer, Task};
use leyden_musique::{MusiqueScorer, Reward};
use serde::Serialize;

use crate::predictions::answers::{self, Answer};
use crate::predictions::{Files, Scored};
use crate::registry::Registry;
use crate::table::{Side, aligned};

/// Scores a file of predictions in the official format, or of lines of `id` and `answer`.
///
/// # Errors
/// Files that cannot be read, predictions that do not match the questions.
pub fn score(files: &Files, registry: &Registry) -> Result<Scored> {
    let reward: Reward = match files.reward.as_deref() {
        None => Reward::default(),
        Some(name) => name.parse().map_err(|error: String| anyhow::anyhow!("--reward: {error}"))?,
    };
    if !answers::are_named(&files.pred)? {
        files.in_order()?;
        let evaluation = leyden_musique::evaluate(&files.gold, &files.pred)?;
        return Scored::of(&evaluation.to_string(), &evaluation);
    }
    let (gold, answers) = files.named(registry, "rag", None)?;
    let evaluation = Evaluation::of(&gold.read.tasks, &answers)?;
    let scorer = MusiqueScorer { reward };
    Scored::with_rewards(&evaluation.to_string(), &evaluation, &scorer, &gold, &answers)
}

/// Means over answerable questions, each in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Means {
    pub questions: usize,
    pub answer_em: f64,
    pub answer_f1: f64,
    /// Share of messages with an answer span.
    pub with_answer: f64,
}

/// The official answer metrics, overall and by number of hops.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Evaluation {
    #[serde(flatten)]
    pub all: Means,
    pub by_hops: BTreeMap<String, Means>,
}

impl Evaluation {
    /// The answer of a message is its last `<answer>` span, as in training. As in the official
    /// metrics, unanswerable questions do not count.
    ///
    /// # Errors
    /// A question without a reference.
    fn of(tasks: &[Task], answers: &[Answer]) -> Result<Self, ScoreError> {
        let mut all = Means::default();
        let mut by_hops: BTreeMap<String, Means> = BTreeMap::new();
        for (task, answer) in tasks.iter().zip(answers) {
            if task.label("answerable") == Some("false") {
                continue;
            }
            let parts = MusiqueScorer::default().score(task, answer.text.as_deref())?.parts;
            let of_hops = task.label("hops").map(|hops| by_hops.entry(hops.to_owned()));
            let of_hops = of_hops.map(|entry| entry.or_default());
            for means in [&mut all].into_iter().chain(of_hops) {
                means.questions += 1;
                means.answer_em += parts["exact_match"];
                means.answer_f1 += parts["f1"];
                means.with_answer += parts["format"];
            }
        }
        for means in [&mut all].into_iter().chain(by_hops.values_mut()) {
            let count = means.questions.max(1) as f64;
            means.answer_em /= count;
            means.answer_f1 /= count;
            means.with_answer /= count;
        }
        Ok(Self { all, by_hops })
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "questions", "answer_em", "answer_f1", "with answer"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let by_hops = self.by_hops.iter().map(|(hops, means)| (format!("{hops} hops"), means));
        for (name, means) in by_hops.chain([("all".to_owned(), &self.all)]) {
            let values = [means.answer_em, means.answer_f1, means.with_answer];
            let row = [name, means.questions.to_string()].into_iter();
            rows.push(row.chain(values.map(|value| format!("{value:.3}"))).collect());
        }
        let right = Side::Right;
        f.write_str(&aligned(&rows, &[Side::Left, right, right, right, right]))
    }
}
