//! The words for the slots of wordings.
//!
//! They are words of mini-calc in one form each, lower case and in the plural, so that a tokenizer
//! gives each of them one token.

use crate::draws::Draws;
use crate::fill::fill;

/// `{p}` and `{q}`.
const PEOPLE: &[&str] = &[
    "anna", "ben", "carla", "david", "emma", "felix", "grace", "hugo", "ida", "jonas", "karin",
    "leo",
];

/// `{items}` and `{others}`.
const ITEMS: &[&str] = &[
    "apples", "beads", "bottles", "bricks", "buttons", "candles", "cups", "eggs", "lemons",
    "plates", "shells", "stamps",
];

/// `{place}`.
const PLACES: &[&str] = &["hall", "library", "market", "museum", "office", "school", "shop"];

/// Times of a day in their order, which name earlier results: `{time}`.
const TIMES: &[&str] = &["noon", "sunset", "midnight"];

/// One word for every word slot of a problem.
#[derive(Debug, Clone)]
pub(super) struct Words {
    people: (&'static str, &'static str),
    items: (&'static str, &'static str),
    place: &'static str,
    /// The first of two consecutive times.
    first_time: usize,
}

impl Words {
    pub fn draw(draws: &mut Draws) -> Self {
        Self {
            people: two_of(PEOPLE, draws),
            items: two_of(ITEMS, draws),
            place: *draws.choose::<&str>(PLACES),
            first_time: draws.below(TIMES.len() - 1),
        }
    }

    /// The sentence with words for its slots: `number` for `{n}`, and for `{time}` the name of
    /// named result number `named`, 0 or 1.
    ///
    /// # Panics
    /// If the text has another slot. The tables are fixed and covered by tests.
    pub fn fill(&self, text: &str, number: Option<i64>, named: usize) -> String {
        fill(text, |slot| match (slot, number) {
            ("p", _) => self.people.0.to_string(),
            ("q", _) => self.people.1.to_string(),
            ("items", _) => self.items.0.to_string(),
            ("others", _) => self.items.1.to_string(),
            ("place", _) => self.place.to_string(),
            ("time", _) => TIMES[self.first_time + named].to_string(),
            ("n", Some(number)) => number.to_string(),
            _ => panic!("a wording has an unknown slot {{{slot}}}: {text}"),
        })
    }
}

fn two_of(words: &[&'static str], draws: &mut Draws) -> (&'static str, &'static str) {
    let first = draws.below(words.len());
    let second = (first + 1 + draws.below(words.len() - 1)) % words.len();
    (words[first], words[second])
}
