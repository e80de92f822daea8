//! The sentences of mini-calc, one file per number of operations.
//!
//! A row is one wording with slots; `{a}`, `{b}`, … are the operands of the shape above it,
//! wherever the sentence mentions them. The rows under `held_out` never occur in training.
//! They put known phrases together in a new way and hold no word of their own.

mod one;
mod three;
mod two;

/// The wordings of one expression.
pub(super) struct Shape {
    pub expression: &'static str,
    pub training: &'static [&'static str],
    pub held_out: &'static [&'static str],
}

pub(super) fn shapes() -> impl Iterator<Item = &'static Shape> {
    one::SHAPES.iter().chain(two::SHAPES).chain(three::SHAPES)
}
