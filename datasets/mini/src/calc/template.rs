//! Templates (wordings with slots) and their rendering as questions.

use std::collections::BTreeSet;

use super::expression::Expression;
use super::templates;
use super::words::{CONTAINERS, GROUPS, ITEMS, PEOPLE, PLACES};
use crate::draws::Draws;
use crate::fill::{fill, slots};

/// One wording of one expression.
#[derive(Debug, Clone)]
pub struct Template {
    /// The shape and a number: `a-b#3`, or `a-b#held1` for a held-out template.
    pub id: String,
    /// The sentence with its slots: `{p}`, `{items}`, `{a}`, ….
    pub text: &'static str,
    /// The expression over the operands `a`, `b`, … in letters: `(a + b) * c`.
    pub shape: String,
    /// Operators in the expression: 1, 2 or 3.
    pub operations: usize,
    /// Whether the template is reserved for test.
    pub held_out: bool,
    pub(super) expression: Expression,
}

/// All templates, in the order of the tables.
pub(super) fn all() -> Vec<Template> {
    let mut list = Vec::new();
    for shape in templates::shapes() {
        let expression = Expression::parse_shape(shape.expression)
            .unwrap_or_else(|| panic!("the table has an invalid expression: {}", shape.expression));
        let training = shape.training.iter().map(|text| (*text, false));
        let held_out = shape.held_out.iter().map(|text| (*text, true));
        for (i, (text, held_out)) in training.chain(held_out).enumerate() {
            let number = if held_out { i - shape.training.len() + 1 } else { i + 1 };
            let mark = if held_out { "held" } else { "" };
            list.push(Template {
                id: format!("{}#{mark}{number}", shape.expression.replace(' ', "")),
                text,
                shape: expression.shape(),
                operations: expression.operations(),
                held_out,
                expression: expression.clone(),
            });
        }
    }
    list
}

impl Template {
    /// The operands by index (`a` is 0) in the order in which the sentence mentions them.
    pub fn mentions(&self) -> Vec<usize> {
        slots(self.text).filter_map(operand).collect()
    }

    /// The sentence with `#` for numbers and one name for slots of the same kind, which leaves the
    /// phrases that express the operations.
    pub fn normalised(&self) -> String {
        fill(self.text, |slot| match slot {
            "q" => "{p}".to_string(),
            "others" => "{items}".to_string(),
            "sacks" => "{boxes}".to_string(),
            slot if operand(slot).is_some() => "#".to_string(),
            slot => format!("{{{slot}}}"),
        })
    }

    /// The question with numbers for the operands and words for the other slots.
    pub(super) fn render(&self, numbers: &[i64], words: &SlotWords) -> String {
        fill(self.text, |slot| match slot {
            "p" => words.people.0.to_string(),
            "q" => words.people.1.to_string(),
            "items" => words.items.0.to_string(),
            "others" => words.items.1.to_string(),
            "boxes" => words.containers.0.to_string(),
            "sacks" => words.containers.1.to_string(),
            "group" => words.group.to_string(),
            "place" => words.place.to_string(),
            slot => match operand(slot).and_then(|i| numbers.get(i)) {
                Some(number) => number.to_string(),
                None => panic!("template {} has an unknown slot {{{slot}}}", self.id),
            },
        })
    }

    /// Number of word slots (not operands) that also occur in `other`, and their total number.
    pub(super) fn shared_word_slots(&self, other: &Self) -> (usize, usize) {
        let words = |template: &Self| -> BTreeSet<&'static str> {
            slots(template.text).filter(|slot| operand(slot).is_none()).collect()
        };
        let own = words(self);
        (own.intersection(&words(other)).count(), own.len())
    }
}

/// One word for every word slot.
pub(super) struct SlotWords {
    people: (&'static str, &'static str),
    items: (&'static str, &'static str),
    containers: (&'static str, &'static str),
    group: &'static str,
    place: &'static str,
}

impl SlotWords {
    pub fn draw(draws: &mut Draws) -> Self {
        Self {
            people: two_of(PEOPLE, draws),
            items: two_of(ITEMS, draws),
            containers: two_of(CONTAINERS, draws),
            group: *draws.choose::<&str>(GROUPS),
            place: *draws.choose::<&str>(PLACES),
        }
    }
}

/// The index of an operand's slot: `{a}` is 0.
fn operand(slot: &str) -> Option<usize> {
    match slot.as_bytes() {
        [letter @ b'a'..=b'd'] => Some(usize::from(letter - b'a')),
        _ => None,
    }
}

fn two_of(words: &[&'static str], draws: &mut Draws) -> (&'static str, &'static str) {
    let first = draws.below(words.len());
    let second = (first + 1 + draws.below(words.len() - 1)) % words.len();
    (words[first], words[second])
}
