//! The Calc-X rule for correct answers.
//!
//! The reference is a number or, for multiple choice, a letter. Letters must be equal; numbers may
//! be any expression that the calculator accepts and may differ by one per cent, because chains of
//! the dataset round intermediate results.

use std::collections::BTreeMap;

use leyden_core::{Score, ScoreError, Scorer, Task};

use crate::calculator;

/// Maximum difference between equal numbers, relative to the larger one.
const TOLERANCE: f64 = 0.01;

/// Separator between a fraction and its decimal in the calculator's output.
const AROUND: &str = " = around ";

/// Whether `answer` is correct given the reference `gold`.
pub fn same_result(answer: &str, gold: &str) -> bool {
    if answer.trim() == gold.trim() {
        return true;
    }
    if let Some(letter) = option(gold) {
        return option(answer) == Some(letter);
    }
    match (number(answer), number(gold)) {
        (Some(answer), Some(gold)) => close(answer, gold),
        _ => false,
    }
}

/// Result of judging an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Right,
    Wrong,
    /// Not a number or, where the reference is a letter, not a letter.
    NotEvaluable,
    /// There is no answer.
    Unanswered,
}

/// Judges a final message like [`CalcxScorer`]: `Right` corresponds to a reward of 1.
pub fn judge(message: Option<&str>, gold: &str) -> Verdict {
    let Some(message) = message.filter(|text| !text.trim().is_empty()) else {
        return Verdict::Unanswered;
    };
    let answer = extract_answer(message);
    if same_result(answer, gold) {
        return Verdict::Right;
    }
    let evaluable = match option(gold) {
        Some(_) => option(answer).is_some(),
        None => number(answer).is_some(),
    };
    match (evaluable, answer.is_empty()) {
        (_, true) => Verdict::Unanswered,
        (true, _) => Verdict::Wrong,
        (false, _) => Verdict::NotEvaluable,
    }
}

/// The letter of a multiple choice, ignoring brackets.
fn option(text: &str) -> Option<char> {
    let text = without_brackets(text);
    let mut letters = text.chars();
    let letter = letters.next().filter(char::is_ascii_alphabetic)?;
    letters.next().is_none().then_some(letter)
}

fn without_brackets(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '(' | ')')).collect()
}

fn number(text: &str) -> Option<f64> {
    let exact = text.split(AROUND).next().unwrap_or(text);
    calculator::evaluate(exact).ok()?.to_f64()
}

/// Python's `math.isclose` with a relative tolerance: infinities equal only themselves.
fn close(a: f64, b: f64) -> bool {
    if a == b {
        return true;
    }
    let difference = (a - b).abs();
    difference.is_finite()
        && (difference <= (TOLERANCE * a).abs() || difference <= (TOLERANCE * b).abs())
}

/// The contents of the first `### ANSWER: … ###`, else the whole message; trimmed.
pub fn extract_answer(text: &str) -> &str {
    answer_span(text).unwrap_or_else(|| text.trim())
}

/// The contents of the first `### ANSWER: … ###`, if there is one.
///
/// The rule of Agent Lightning's agent: the first match whose contents are on one line, closed by
/// `###`, on the same line or after white space, or by the end of the message.
pub fn answer_span(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("ANSWER:") {
        rest = after;
        if !before.trim_end().ends_with("###") {
            continue;
        }
        let answer = after.trim();
        let (line, more) = answer.split_once('\n').unwrap_or((answer, ""));
        if let Some((inside, _)) = line.split_once("###") {
            return Some(inside.trim());
        }
        if more.is_empty() || more.trim_start().starts_with("###") {
            return Some(line.trim_end());
        }
    }
    None
}

/// Whether the message contains an answer in the required form.
pub fn has_answer_form(text: &str) -> bool {
    answer_span(text).is_some_and(|answer| !answer.is_empty())
}

/// Scores by the Calc-X rule: reward 1 if the answer is right, else 0.
///
/// The input is the agent's whole final message, from which the answer is extracted. Parts:
/// `correct` (the reward) and `format` (1 if the message has the form `### ANSWER: x ###`).
#[derive(Debug, Clone, Copy, Default)]
pub struct CalcxScorer;

impl Scorer for CalcxScorer {
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        if task.gold.trim().is_empty() {
            let what = "its reference result is empty".to_owned();
            return Err(ScoreError { task: task.id.clone(), what });
        }
        let flag = |holds: bool| f64::from(u8::from(holds));
        let correct = answer.is_some_and(|text| same_result(extract_answer(text), &task.gold));
        let format = answer.is_some_and(has_answer_form);
        let parts = BTreeMap::from([("correct", flag(correct)), ("format", flag(format))]);
        Ok(Score { reward: flag(correct), parts })
    }

    fn vote(&self, answer: &str) -> String {
        extract_answer(answer).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(gold: &str) -> Task {
        Task {
            id: "t1".into(),
            question: "?".into(),
            gold: gold.into(),
            labels: vec![],
            fields: Default::default(),
        }
    }

    #[test]
    fn numbers_may_differ_by_one_per_cent_of_the_larger() {
        assert!(same_result("99", "100"));
        assert!(same_result("101", "100"));
        assert!(!same_result("98.9", "100"));
        assert!(!same_result("102", "100"));
        assert!(!same_result("-100", "100"));
        assert!(!same_result("0.001", "0"));
        assert!(same_result("0.0", "0"));
    }

    #[test]
    fn numbers_may_be_written_as_expressions() {
        for answer in ["1_000", "1e3", "10**3", "2000/2", "(1000)", "1000 = around 7", "5!*25/3"] {
            assert!(same_result(answer, "1000"), "{answer}");
        }
        for answer in ["1,000", "$1000", "1000%", "1000 apples", "1 000", "", "None", "inf", "nan"]
        {
            assert!(!same_result(answer, "1000"), "{answer}");
        }
        assert!(same_result("pi", "3.14"));
        assert!(!same_result("1/0", "5"));
        assert!(!same_result("0/0", "0"));
        assert!(same_result("1e400", "1e400*2"));
        assert!(!same_result("1e400", "5"));
    }

    #[test]
    fn letters_must_be_equal_ignoring_brackets() {
        assert!(same_result("(B)", "B"));
        assert!(same_result(" b ) ", "b"));
        assert!(!same_result("b", "B"));
        assert!(!same_result("B) 12", "B"));
        assert!(!same_result("2.718282", "E"));
        // Identical text is correct even if it cannot be evaluated.
        assert!(same_result("5 apples", "5 apples "));
    }

    #[test]
    fn the_answer_is_extracted_from_its_span() {
        assert_eq!(extract_answer("So 3. ### ANSWER: 42 ###"), "42");
        assert_eq!(extract_answer("###ANSWER:42### and ### ANSWER: 7 ###"), "42");
        assert_eq!(extract_answer("### ANSWER: 7"), "7");
        assert_eq!(extract_answer("### ANSWER: 42\n###"), "42");
        assert_eq!(extract_answer("### ANSWER: 42 \r\n\n  ### done"), "42");
        assert_eq!(extract_answer("### ANSWER:\n42\n"), "42");
        assert_eq!(extract_answer("### ANSWER: 4\n2\n###"), "### ANSWER: 4\n2\n###");
        assert_eq!(extract_answer("The ANSWER: 3\n### ANSWER: 4 ###"), "4");
        assert_eq!(extract_answer(" 42 "), "42");
        // Neither closed nor at the end: no span, so the whole message is the answer.
        assert_eq!(extract_answer("### ANSWER: 7\nbecause"), "### ANSWER: 7\nbecause");
        assert!(has_answer_form("### ANSWER: 42 ###"));
        assert!(!has_answer_form("### ANSWER:"));
        assert!(!has_answer_form("42"));
    }

    #[test]
    fn verdicts_explain_why_an_answer_is_not_correct() {
        use Verdict::{NotEvaluable, Right, Unanswered, Wrong};
        for (message, gold, verdict) in [
            (Some("So ### ANSWER: 42 ###"), "42", Right),
            (Some("41"), "42", Wrong),
            (Some("about 42 apples"), "42", NotEvaluable),
            (Some("### ANSWER: ###"), "42", Unanswered),
            (Some(" "), "42", Unanswered),
            (None, "42", Unanswered),
            (Some("(B)"), "B", Right),
            (Some("C"), "B", Wrong),
            (Some("12"), "B", NotEvaluable),
        ] {
            assert_eq!(judge(message, gold), verdict, "{message:?}");
            let reward = CalcxScorer.score(&task(gold), message).unwrap().reward;
            assert_eq!(reward == 1.0, verdict == Right, "{message:?}");
        }
    }

    #[test]
    fn scores_carry_their_parts() {
        let scorer = CalcxScorer;
        let right = scorer.score(&task("42"), Some("I think ### ANSWER: 42.1 ###")).unwrap();
        assert_eq!((right.reward, right.parts["correct"], right.parts["format"]), (1.0, 1.0, 1.0));
        let bare = scorer.score(&task("42"), Some("42")).unwrap();
        assert_eq!((bare.reward, bare.parts["format"]), (1.0, 0.0));
        let wrong = scorer.score(&task("42"), Some("### ANSWER: 41 ###")).unwrap();
        assert_eq!((wrong.reward, wrong.parts["format"]), (0.0, 1.0));
        let none = scorer.score(&task("42"), None).unwrap();
        assert_eq!((none.reward, none.parts["format"]), (0.0, 0.0));
        let error = scorer.score(&task(" "), Some("1")).unwrap_err();
        assert_eq!(error.to_string(), "task t1 cannot be scored: its reference result is empty");
    }
}
