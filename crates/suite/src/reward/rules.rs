//! Rewards by name, which compare an answer with its reference.

use std::collections::BTreeMap;

use leyden_core::{Score, ScoreError, Scorer, Task};
use leyden_musique::loader::golds;
use leyden_musique::metric::answer_agreement;
use leyden_musique::scorer::answer_span;
use serde_json::Value;

/// How an answer is compared with its reference. If the task has several references
/// (`answer_aliases`), the best match counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// 1 if the texts are equal, up to white space.
    Exact,
    /// 1 if the last number of the answer equals that of the reference to six digits.
    Number,
    /// 1 if the answer chooses the letter of the reference.
    Choice,
    /// Token F1 after SQuAD's normalisation, between 0 and 1.
    F1,
    /// 1 if the reference occurs in the answer, up to case and white space.
    Contains,
    /// 1 if the JSON in the answer equals that of the reference, up to the order of keys and the
    /// format of numbers.
    Json,
}

impl Rule {
    pub const ALL: [Self; 6] =
        [Self::Exact, Self::Number, Self::Choice, Self::F1, Self::Contains, Self::Json];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Number => "number",
            Self::Choice => "choice",
            Self::F1 => "f1",
            Self::Contains => "contains",
            Self::Json => "json",
        }
    }

    /// The reward of `answer` against one reference, in [0, 1], or an error in the reference.
    fn compare(self, answer: &str, gold: &str) -> Result<f64, String> {
        let holds = match self {
            Self::Exact => words(answer) == words(gold),
            Self::Number => {
                let gold = last_number(gold)
                    .ok_or_else(|| format!("its reference answer `{gold}` has no number"))?;
                last_number(answer)
                    .is_some_and(|found| (found - gold).abs() <= 1e-6 * gold.abs().max(1.0))
            }
            Self::Choice => {
                let gold = choice(gold)
                    .ok_or_else(|| format!("its reference answer `{gold}` has no letter"))?;
                choice(answer) == Some(gold)
            }
            Self::F1 => return Ok(answer_agreement(answer, std::iter::once(gold)).f1),
            Self::Contains => words(&answer.to_lowercase()).contains(&words(&gold.to_lowercase())),
            Self::Json => {
                let gold = serde_json::from_str::<Value>(gold)
                    .map_err(|error| format!("its reference answer is not JSON: {error}"))?;
                last_json(answer).is_some_and(|found| same(&found, &gold))
            }
        };
        Ok(f64::from(u8::from(holds)))
    }
}

impl Scorer for Rule {
    fn score(&self, task: &Task, answer: Option<&str>) -> Result<Score, ScoreError> {
        let broken = |what: String| ScoreError { task: task.id.clone(), what };
        if task.gold.trim().is_empty() {
            return Err(broken("its reference answer is empty".to_owned()));
        }
        let judged = judged(answer.unwrap_or_default());
        let mut reward: f64 = 0.0;
        for gold in golds(task) {
            // Compare even without an answer, so that a broken reference is always reported.
            let own = self.compare(judged, gold).map_err(broken)?;
            reward = reward.max(if answer.is_some() { own } else { 0.0 });
        }
        Ok(Score { reward, parts: BTreeMap::from([(self.name(), reward)]) })
    }

    fn vote(&self, answer: &str) -> String {
        words(judged(answer))
    }
}

/// The part of an answer that is scored.
fn judged(answer: &str) -> &str {
    let marked = || {
        let (_, rest) = answer.rsplit_once("### ANSWER:")?;
        Some(rest.split_once("###").map_or(rest, |(inside, _)| inside).trim())
    };
    answer_span(answer).or_else(marked).unwrap_or_else(|| answer.trim())
}

/// The text with normalised white space.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The last number of a text: digits with an optional sign, fraction and exponent, in which
/// commas and underscores group thousands.
fn last_number(text: &str) -> Option<f64> {
    let characters: Vec<char> = text.chars().collect();
    let mut found = None;
    let mut at = 0;
    while at < characters.len() {
        let digit = |index: usize| characters.get(index).is_some_and(char::is_ascii_digit);
        let starts = digit(at) || characters[at] == '.' && digit(at + 1);
        if !starts {
            at += 1;
            continue;
        }
        // A hyphen after a word or a number is not a sign.
        let sign = at > 0
            && characters[at - 1] == '-'
            && (at < 2 || !characters[at - 2].is_alphanumeric());
        let mut number = String::from(if sign { "-" } else { "" });
        let mut fraction = false;
        while at < characters.len() {
            match characters[at] {
                c if c.is_ascii_digit() => number.push(c),
                '.' if !fraction && digit(at + 1) => {
                    fraction = true;
                    number.push('.');
                }
                ',' | '_' if !fraction && digit(at + 1) => {}
                _ => break,
            }
            at += 1;
        }
        if at < characters.len() && matches!(characters[at], 'e' | 'E') {
            let signed = matches!(characters.get(at + 1), Some('+' | '-'));
            let first = at + 1 + usize::from(signed);
            if digit(first) {
                let end = (first..).find(|&index| !digit(index)).unwrap_or(first);
                number.extend(&characters[at..end]);
                at = end;
            }
        }
        found = number.parse().ok().filter(|number: &f64| number.is_finite()).or(found);
    }
    found
}

/// The chosen letter: the text itself if it is a single letter, else the last isolated capital
/// letter.
fn choice(text: &str) -> Option<char> {
    let bare = |word: &str| -> Option<char> {
        let mut letters = word.trim_matches(|c: char| !c.is_alphanumeric()).chars();
        let letter = letters.next().filter(char::is_ascii_alphabetic)?;
        letters.next().is_none().then_some(letter)
    };
    if let Some(letter) = bare(text.trim()) {
        return Some(letter.to_ascii_uppercase());
    }
    text.split_whitespace().filter_map(bare).rfind(char::is_ascii_uppercase)
}

/// The last JSON object or list of a text, or the text itself as JSON.
fn last_json(text: &str) -> Option<Value> {
    if let Ok(whole) = serde_json::from_str(text.trim()) {
        return Some(whole);
    }
    let mut found = None;
    let mut rest = text;
    // Skips the content of each parsed value, so each is parsed once. The number of attempts is
    // limited for texts with many unclosed brackets.
    for _ in 0..1000 {
        let Some(start) = rest.find(['{', '[']) else { break };
        let mut values = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<Value>();
        let end = match values.next() {
            Some(Ok(value)) => {
                found = Some(value);
                values.byte_offset()
            }
            _ => 1,
        };
        rest = &rest[start + end..];
    }
    found
}

/// Whether two JSON values are equal, comparing numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn task(gold: &str) -> Task {
        Task {
            id: "t".to_owned(),
            question: "q".to_owned(),
            gold: gold.to_owned(),
            labels: Vec::new(),
            fields: Map::new(),
        }
    }

    fn reward(rule: Rule, answer: &str, gold: &str) -> f64 {
        rule.score(&task(gold), Some(answer)).unwrap().reward
    }

    #[test]
    fn each_rule_scores_right_and_wrong_answers() {
        use Rule::{Choice, Contains, Exact, F1, Json, Number};
        for (rule, answer, gold, expected) in [
            (Exact, " New\n York ", "New York", 1.0),
            (Exact, "new york", "New York", 0.0),
            (Exact, "I think <answer>Rome</answer>", "Rome", 1.0),
            (Number, "So 3 + 4 = 7.", "7", 1.0),
            (Number, "it costs $1,234.50", "1234.5", 1.0),
            (Number, "### ANSWER: -3e2 ### in 2 steps", "-300", 1.0),
            (Number, "10-3", "3", 1.0),
            (Number, "many", "3", 0.0),
            (Number, "1e999", "3", 0.0),
            (Choice, "b", "B", 1.0),
            (Choice, "The answer is (C).", "C", 1.0),
            (Choice, "A or B? I say B", "B", 1.0),
            (Choice, "none", "B", 0.0),
            (F1, "the city of Rome", "Rome", 0.5),
            (Contains, "It is  ROME, of course", "rome", 1.0),
            (Contains, "It is Paris", "rome", 0.0),
            (Json, "```json\n{\"b\": 1.0, \"a\": [true]}\n```", r#"{"a": [true], "b": 1}"#, 1.0),
            (Json, "{\"a\": [false]}", r#"{"a": [true]}"#, 0.0),
            (Json, "no JSON {", "[]", 0.0),
            (Json, "3", "3", 1.0),
        ] {
            let found = reward(rule, answer, gold);
            assert!((found - expected).abs() < 1e-9, "{rule:?}: {answer} for {gold}: {found}");
        }
    }

    #[test]
    fn no_answer_is_wrong_and_a_broken_reference_has_no_reward() {
        for rule in Rule::ALL {
            let gold = match rule {
                Rule::Number => "1",
                Rule::Choice => "A",
                _ => "{}",
            };
            assert_eq!(rule.score(&task(gold), None).unwrap().reward, 0.0, "{rule:?}");
            assert!(rule.score(&task(" "), Some("x")).is_err());
        }
        for (rule, gold) in [(Rule::Number, "many"), (Rule::Choice, "12"), (Rule::Json, "{")] {
            let error = rule.score(&task(gold), None).unwrap_err().to_string();
            assert!(error.starts_with("task t cannot be scored: its reference"), "{error}");
        }
    }

    #[test]
    fn the_best_of_several_references_counts() {
        let mut task = task("Rome");
        task.fields.insert("answer_aliases".to_owned(), json!(["Roma"]));
        assert_eq!(Rule::Exact.score(&task, Some("Roma")).unwrap().reward, 1.0);
    }

    #[test]
    fn hostile_answers_are_scored_as_wrong() {
        let nested = "[".repeat(200_000);
        let digits = "9".repeat(200_000);
        for rule in Rule::ALL {
            for answer in [&nested, &digits, "\0", "<answer>", "### ANSWER:"] {
                let gold = if rule == Rule::Choice { "A" } else { "1" };
                let score = rule.score(&task(gold), Some(answer)).unwrap();
                assert!((0.0..=1.0).contains(&score.reward));
            }
        }
    }
}
