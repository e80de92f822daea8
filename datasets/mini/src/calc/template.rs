//! A wording with slots, and how it becomes a question.

use super::expression::Expression;
use super::templates;
use super::words::{CONTAINERS, GROUPS, ITEMS, PEOPLE, PLACES};
use crate::draws::Draws;
use crate::fill::{fill, slots};

/// One wording of one expression.
#[derive(Debug, Clone)]
pub struct Template {
    /// The shape and a number: `a-b#3`, or `a-b#held1` for one kept for test.
    pub id: String,
    /// The sentence with its slots: `{p}`, `{items}`, `{a}`, ….
    pub text: &'static str,
    /// The expression over the operands `a`, `b`, … in letters: `(a + b) * c`.
    pub shape: String,
    /// Operators in the expression: 1, 2 or 3.
    pub operations: usize,
    /// Whether the template is kept for test.
    pub held_out: bool,
    pub(super) expression: Expression,
}

/// All templates, in the order of the tables.
pub(super) fn all() -> Vec<Template> {
    let mut list = Vec::new();
    for shape in templates::shapes() {
        let expression = Expression::parse_shape(shape.expression)
            .unwrap_or_else(|| panic!("the table holds no expression: {}", shape.expression));
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

    /// The sentence with `#` for numbers and one name for slots of the same kind: what stays
    /// are the phrases that tell the operation.
    pub fn normalised(&self) -> String {
        fill(self.text, |slot| match slot {
            "q" => "{p}".to_string(),
            "others" => "{items}".to_string(),
            "sacks" => "{boxes}".to_string(),
            slot if operand(slot).is_some() => "#".to_string(),
            slot => format!("{{{slot}}}"),
        })
    }

    /// The question with the operands' numbers and drawn words.
    pub(super) fn render(&self, numbers: &[i64], draws: &mut Draws) -> String {
        let (p, q) = two_of(PEOPLE, draws);
        let (items, others) = two_of(ITEMS, draws);
        let (boxes, sacks) = two_of(CONTAINERS, draws);
        let (group, place) = (*draws.choose(GROUPS), *draws.choose(PLACES));
        fill(self.text, |slot| match slot {
            "p" => p.to_string(),
            "q" => q.to_string(),
            "items" => items.to_string(),
            "others" => others.to_string(),
            "boxes" => boxes.to_string(),
            "sacks" => sacks.to_string(),
            "group" => group.to_string(),
            "place" => place.to_string(),
            slot => match operand(slot).and_then(|i| numbers.get(i)) {
                Some(number) => number.to_string(),
                None => panic!("template {} has an unknown slot {{{slot}}}", self.id),
            },
        })
    }
}

/// The index of an operand's slot: `{a}` is 0.
fn operand(slot: &str) -> Option<usize> {
    match slot.as_bytes() {
        [letter @ b'a'..=b'd'] => Some(usize::from(letter - b'a')),
        _ => None,
    }
}

fn two_of<'a>(words: &[&'a str], draws: &mut Draws) -> (&'a str, &'a str) {
    let first = draws.below(words.len());
    let second = (first + 1 + draws.below(words.len() - 1)) % words.len();
    (words[first], words[second])
}
