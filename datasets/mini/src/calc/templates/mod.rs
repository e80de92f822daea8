//! The sentences of mini-calc, one file per number of operations.
//!
//! A row is one wording with slots; `{a}`, `{b}`, … are the operands of the shape above it, in any
//! order. The rows under `held_out` never occur in training: they combine known phrases in a new
//! way and have no new words.

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
