//! The sentences of mini-ledger: tables of wordings, a few stories per file.
//!
//! Every sentence about a step is short, has one verb phrase and one number or one earlier result.
//! The rows under `held_out` never occur in training and have no new words.

mod goods;
mod nature;
mod people;
mod side;

use crate::calc::Operator;

pub(super) use side::SIDE;

/// A kind of story: what is counted, and how it changes.
#[derive(Debug)]
pub(super) struct Story {
    pub name: &'static str,
    /// First sentences, with the first number `{n}`.
    pub openings: &'static [&'static str],
    /// Exactly one entry for each operation with a number of the sentence, and for addition and
    /// subtraction of an earlier result.
    pub steps: &'static [Wordings],
    pub questions: &'static [&'static str],
}

/// The wordings of one kind of step.
#[derive(Debug)]
pub(super) struct Wordings {
    pub operator: Operator,
    /// Whether the operand is an earlier result, named by its time, instead of a number `{n}`.
    pub earlier: bool,
    pub training: &'static [&'static str],
    pub held_out: &'static [&'static str],
}

/// The sentence that names the result of the step before it.
pub(super) const NAMING: &str = "now it is {time}.";

/// All stories in a fixed order.
pub(super) fn stories() -> Vec<&'static Story> {
    goods::STORIES.iter().chain(people::STORIES).chain(nature::STORIES).collect()
}
