//! Computes the reward of an agent's final message.

use std::collections::BTreeMap;
use std::str::FromStr;

use leyden_core::{Score, ScoreError, Scorer, Task};

use crate::loader::golds;
use crate::metric::{answer_agreement, normalise};

/// The tags of an answer.
const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// The contents of the last closed `<answer>…</answer>`, trimmed; `None` if there is none.
///
/// A span begins at the nearest `<answer>` before its end, so that mentioning the tag in the
/// reasoning does not invalidate the answer that follows.
pub fn answer_span(text: &str) -> Option<&str> {
    let mut last = None;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(CLOSE) {
        if let Some((_, inside)) = before.rsplit_once(OPEN) {
            last = Some(inside.trim());
        }
        rest = after;
    }
    last
}

/// Formula of the reward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reward {
    /// Token F1, as in Agent Lightning's code.
    #[default]
    F1,
    /// 0.9 · F1 + 0.1 · format, as in its paper; format is 1 if there is an answer span.
    F1AndFormat,
}

impl Reward {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::F1 => "f1",
            Self::F1AndFormat => "f1_format",
        }
    }
}

impl FromStr for Reward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::F1, Self::F1AndFormat]
            .into_iter()
            .find(|reward| reward.name() == text)
            .ok_or_else(|| format!("there is no reward `{text}`; use f1 or f1_format"))
    }
}

/// Scores the last `<answer>` span against the answer and its aliases.
///
/// Parts: `exact_match`, `f1` (both as in the official evaluator) and `format` (1 if there is a
/// non-empty span). Without a span all are 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct MusiqueScorer {
    pub reward: Reward,
}

impl Scorer for MusiqueScorer {
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        if task.gold.trim().is_empty() {
            let what = "its reference answer is empty".to_owned();
            return Err(ScoreError { task: task.id.clone(), what });
        }
        let span = answer.and_then(answer_span).filter(|span| !span.is_empty());
        let agreement = span.map(|span| answer_agreement(span, golds(task))).unwrap_or_default();
        let format = f64::from(span.is_some());
        let reward = match self.reward {
            Reward::F1 => agreement.f1,
            Reward::F1AndFormat => 0.9 * agreement.f1 + 0.1 * format,
        };
        let parts = BTreeMap::from([
            ("exact_match", agreement.exact_match),
            ("f1", agreement.f1),
            ("format", format),
        ]);
        Ok(Score { reward, parts })
    }

    fn vote(&self, answer: &str) -> String {
        normalise(answer_span(answer).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(gold: &str, aliases: &[&str]) -> Task {
        let mut fields = serde_json::Map::new();
        fields.insert("answer_aliases".to_owned(), json!(aliases));
        Task {
            id: "t1".to_owned(),
            question: "?".to_owned(),
            gold: gold.to_owned(),
            labels: Vec::new(),
            fields,
        }
    }

    #[test]
    fn the_last_closed_span_is_the_answer() {
        for (text, span) in [
            ("So <answer> Paris </answer>.", Some("Paris")),
            ("<answer>A</answer> no: <answer>B\nC</answer>", Some("B\nC")),
            ("<answer>A</answer> <answer>B", Some("A")),
            ("I answer in <answer> tags: <answer>A</answer>", Some("A")),
            ("<answer>A</answer></answer>", Some("A")),
            ("<answer></answer>", Some("")),
            ("</answer> Paris <answer>", None),
            ("<ANSWER>Paris</ANSWER>", None),
            ("Paris", None),
        ] {
            assert_eq!(answer_span(text), span, "{text}");
        }
    }

    #[test]
    fn rewards_are_the_two_of_the_paper_and_its_code() {
        let task = task("New York City", &["NYC", "Big Apple"]);
        let score = |reward, answer| MusiqueScorer { reward }.score(&task, answer).unwrap();
        let partly = Some("<answer>New York</answer>");
        assert_eq!(score(Reward::F1, partly).reward, 0.8);
        assert_eq!(score(Reward::F1AndFormat, partly).reward, 0.9 * 0.8 + 0.1);
        assert_eq!(score(Reward::F1, Some("<answer>the NYC!</answer>")).parts["exact_match"], 1.0);
        let wrong = Some("<answer>Boston</answer>");
        assert_eq!(score(Reward::F1, wrong).reward, 0.0);
        assert_eq!(score(Reward::F1AndFormat, wrong).reward, 0.1);
        for none in [None, Some("New York City"), Some("<answer> </answer>")] {
            for reward in [Reward::F1, Reward::F1AndFormat] {
                let score = score(reward, none);
                assert_eq!((score.reward, score.parts["format"]), (0.0, 0.0), "{none:?}");
            }
        }
    }

    #[test]
    fn rewards_have_names() {
        for reward in [Reward::F1, Reward::F1AndFormat] {
            assert_eq!(reward.name().parse(), Ok(reward));
        }
        let error = "accuracy".parse::<Reward>().unwrap_err();
        assert_eq!(error, "there is no reward `accuracy`; use f1 or f1_format");
    }

    #[test]
    fn a_task_without_a_reference_has_no_score() {
        let error = MusiqueScorer::default().score(&task(" ", &[]), None).unwrap_err();
        assert_eq!(error.to_string(), "task t1 cannot be scored: its reference answer is empty");
    }
}
