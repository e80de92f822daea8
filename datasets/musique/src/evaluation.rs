//! The table of the official evaluator (`evaluate_v1.0.py`) over a file of predictions.
//!
//! A line of predictions has `id`, `predicted_answer`, `predicted_support_idxs` and
//! `predicted_answerable`. The original requires both files in the same order; here predictions are
//! matched by id, the second prediction with the second question of an id, as in the full dataset.
//! Unlike a loader of training data, which skips bad rows, an evaluation must cover exactly the
//! given questions: anything missing is an error.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use leyden_core::rows::{JsonLines, LoadError, RowError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::metric::{Agreement, answer_agreement, support_agreement};

/// Why predictions cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    #[error(transparent)]
    File(#[from] LoadError),
    #[error("the file {}, line {line}, is not a {kind}: {what}", path.display())]
    Line { path: PathBuf, line: usize, kind: &'static str, what: String },
    #[error("there is no question in the file {}", .0.display())]
    Empty(PathBuf),
    #[error("the file {} has no prediction for the question {id} ({count} are missing in total)",
        path.display())]
    Missing { path: PathBuf, id: String, count: usize },
    #[error("the file {} has more predictions for {id} than there are such questions",
        path.display())]
    Surplus { path: PathBuf, id: String },
    #[error(
        "the question {0} must occur twice, once answerable and once not, if a file has \
        unanswerable questions"
    )]
    Unpaired(String),
}

#[derive(Deserialize)]
struct Prediction {
    id: String,
    predicted_answer: String,
    predicted_support_idxs: Vec<i64>,
    predicted_answerable: bool,
}

#[derive(Deserialize)]
struct Question {
    id: String,
    answer: String,
    #[serde(default)]
    answer_aliases: Vec<String>,
    paragraphs: Vec<Paragraph>,
    #[serde(default)]
    question_decomposition: Vec<Value>,
    answerable: bool,
}

#[derive(Deserialize)]
struct Paragraph {
    idx: i64,
    is_supporting: bool,
}

/// Means over answerable questions, each in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Means {
    pub questions: usize,
    pub answer_em: f64,
    pub answer_f1: f64,
    pub support_em: f64,
    pub support_f1: f64,
}

impl Means {
    fn of(scores: &[(Agreement, Agreement)]) -> Self {
        let mean = |part: fn(&(Agreement, Agreement)) -> f64| {
            scores.iter().map(part).sum::<f64>() / (scores.len().max(1) as f64)
        };
        Self {
            questions: scores.len(),
            answer_em: mean(|(answer, _)| answer.exact_match),
            answer_f1: mean(|(answer, _)| answer.f1),
            support_em: mean(|(_, support)| support.exact_match),
            support_f1: mean(|(_, support)| support.f1),
        }
    }
}

/// F1 of pairs of questions: that of the answerable one if the answerability of both is predicted
/// correctly, else 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sufficiency {
    pub pairs: usize,
    pub group_answer_sufficiency_f1: f64,
    pub group_support_sufficiency_f1: f64,
}

/// The official measures, also by number of hops.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    #[serde(flatten)]
    pub all: Means,
    pub by_hops: BTreeMap<usize, Means>,
    /// Only if the file has unanswerable questions.
    #[serde(flatten)]
    pub sufficiency: Option<Sufficiency>,
}

/// Evaluates the predictions in `pred` against the official JSONL `gold`.
///
/// # Errors
/// If a file cannot be read, a line is malformed, or the files have different questions.
pub fn evaluate(
    gold: impl AsRef<Path>,
    pred: impl AsRef<Path>,
) -> Result<Evaluation, EvaluationError> {
    let (gold, pred) = (gold.as_ref(), pred.as_ref());
    let questions: Vec<Question> = lines(gold, "question")?;
    if questions.is_empty() {
        return Err(EvaluationError::Empty(gold.to_owned()));
    }
    let predictions = matched(&questions, lines(pred, "prediction")?, pred)?;
    let scores: Vec<(Agreement, Agreement)> =
        questions.iter().zip(&predictions).map(|(q, p)| agreement(q, p)).collect();
    let mut answerable = Vec::new();
    let mut by_hops: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for (question, score) in questions.iter().zip(&scores).filter(|(q, _)| q.answerable) {
        answerable.push(*score);
        by_hops.entry(question.question_decomposition.len()).or_default().push(*score);
    }
    let by_hops = by_hops.into_iter().filter(|(hops, _)| *hops > 0);
    Ok(Evaluation {
        all: Means::of(&answerable),
        by_hops: by_hops.map(|(hops, scores)| (hops, Means::of(&scores))).collect(),
        sufficiency: sufficiency(&questions, &predictions, &scores)?,
    })
}

fn lines<T: DeserializeOwned>(path: &Path, kind: &'static str) -> Result<Vec<T>, EvaluationError> {
    let mut items = Vec::new();
    for line in JsonLines::open(path)? {
        let line = line?;
        let item = line.row.map_err(|error: RowError| error.to_string()).and_then(|row| {
            serde_json::from_value(Value::Object(row)).map_err(|error| error.to_string())
        });
        items.push(item.map_err(|what| EvaluationError::Line {
            path: path.to_owned(),
            line: line.number,
            kind,
            what,
        })?);
    }
    Ok(items)
}

/// The predictions in the order of the questions.
fn matched(
    questions: &[Question],
    predictions: Vec<Prediction>,
    path: &Path,
) -> Result<Vec<Prediction>, EvaluationError> {
    let mut by_id: HashMap<String, VecDeque<Prediction>> = HashMap::new();
    let order: Vec<String> = predictions.iter().map(|p| p.id.clone()).collect();
    for prediction in predictions {
        by_id.entry(prediction.id.clone()).or_default().push_back(prediction);
    }
    let mut found = Vec::with_capacity(questions.len());
    let mut missing = Vec::new();
    for question in questions {
        match by_id.get_mut(&question.id).and_then(VecDeque::pop_front) {
            Some(prediction) => found.push(prediction),
            None => missing.push(question.id.clone()),
        }
    }
    let path = path.to_owned();
    if let Some(id) = missing.first().cloned() {
        return Err(EvaluationError::Missing { path, id, count: missing.len() });
    }
    match order.into_iter().find(|id| by_id.get(id).is_some_and(|left| !left.is_empty())) {
        Some(id) => Err(EvaluationError::Surplus { path, id }),
        None => Ok(found),
    }
}

/// Agreement of the answer and of the supporting paragraphs.
fn agreement(question: &Question, prediction: &Prediction) -> (Agreement, Agreement) {
    let aliases = question.answer_aliases.iter().map(String::as_str);
    let golds = std::iter::once(question.answer.as_str()).chain(aliases);
    let support: Vec<i64> =
        question.paragraphs.iter().filter(|p| p.is_supporting).map(|p| p.idx).collect();
    (
        answer_agreement(&prediction.predicted_answer, golds),
        support_agreement(&prediction.predicted_support_idxs, &support),
    )
}

/// The two questions with one id.
struct Pair {
    questions: usize,
    /// Scores of the answerable question.
    scores: Option<(Agreement, Agreement)>,
    answerability_correct: bool,
}

fn sufficiency(
    questions: &[Question],
    predictions: &[Prediction],
    scores: &[(Agreement, Agreement)],
) -> Result<Option<Sufficiency>, EvaluationError> {
    if questions.iter().all(|question| question.answerable) {
        return Ok(None);
    }
    let mut pairs: BTreeMap<&str, Pair> = BTreeMap::new();
    for ((question, prediction), scores) in questions.iter().zip(predictions).zip(scores) {
        let pair = pairs.entry(&question.id).or_insert(Pair {
            questions: 0,
            scores: None,
            answerability_correct: true,
        });
        pair.questions += 1;
        pair.answerability_correct &= prediction.predicted_answerable == question.answerable;
        if question.answerable {
            pair.scores = Some(*scores);
        }
    }
    let (mut answers, mut supports) = (0.0, 0.0);
    for (id, pair) in &pairs {
        match pair.scores {
            Some((answer, support)) if pair.questions == 2 => {
                if pair.answerability_correct {
                    answers += answer.f1;
                    supports += support.f1;
                }
            }
            _ => return Err(EvaluationError::Unpaired((*id).to_owned())),
        }
    }
    let count = pairs.len() as f64;
    Ok(Some(Sufficiency {
        pairs: pairs.len(),
        group_answer_sufficiency_f1: answers / count,
        group_support_sufficiency_f1: supports / count,
    }))
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["questions", "answer_em", "answer_f1", "support_em", "support_f1"];
        write!(f, "{:<8}", "")?;
        for column in columns {
            write!(f, "{column:>12}")?;
        }
        writeln!(f)?;
        let rows = self.by_hops.iter().map(|(hops, means)| (format!("{hops} hops"), means));
        for (name, means) in rows.chain([("all".to_owned(), &self.all)]) {
            write!(f, "{name:<8}{:>12}", means.questions)?;
            for value in [means.answer_em, means.answer_f1, means.support_em, means.support_f1] {
                write!(f, "{value:>12.3}")?;
            }
            writeln!(f)?;
        }
        if let Some(pairs) = &self.sufficiency {
            writeln!(f, "group_answer_sufficiency_f1  {:.3}", pairs.group_answer_sufficiency_f1)?;
            writeln!(f, "group_support_sufficiency_f1 {:.3}", pairs.group_support_sufficiency_f1)?;
        }
        Ok(())
    }
}
