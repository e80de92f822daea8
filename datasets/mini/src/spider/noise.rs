//! Demonstrations that are right choice by choice, some of the time.
//!
//! A base model for reinforcement learning has to know the language of queries, how to copy
//! names and values and the agent's protocol, but not which query answers which question:
//! that is what the rewards teach. So it is shown queries with the right names and values in
//! which each choice (see `choices`: aggregate, comparison, direction, limit, which of two
//! columns orders, join, negation, connective, group) is right with a stated probability, and
//! else one of the wrong ways at random.
//!
//! A choice among `k` ways is right with probability `k^-e`; `e` is such that all choices of
//! a query are right about one time in twenty, whatever their number, but at most
//! [`GUESS`]. With `e` = 1 a choice would be a mere guess, and beyond it the base would learn
//! to avoid the right way: queries with few choices are rather right more often. The verdicts
//! on a query are little better than chance, and with the rewritten queries about one rollout
//! in ten ends with the right result.

use leyden_core::{SeedTree, Task};

use super::query::Query;
use super::{MiniSpider, choices};
use crate::draws::Draws;

/// One turn of the agent's roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The first query.
    Write { query: String },
    /// The verdict on the query before.
    Check { correct: bool },
    /// Another query.
    Rewrite { query: String },
}

/// A demonstrated rollout: a query, then verdicts and rewritten queries in turn. It ends with
/// the verdict "correct" or with the last verdict that the agent's limit allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    pub task: Task,
    pub turns: Vec<Turn>,
}

impl Demonstration {
    /// The query that the rollout ends with.
    pub fn query(&self) -> &str {
        fn query(turn: &Turn) -> Option<&String> {
            match turn {
                Turn::Write { query } | Turn::Rewrite { query } => Some(query),
                Turn::Check { .. } => None,
            }
        }
        self.turns.iter().rev().find_map(query).map_or("", String::as_str)
    }
}

/// Largest exponent of the probabilities: 1 is a guess, smaller is better.
pub const GUESS: f64 = 0.95;

/// How far demonstrations are from right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Probability that all choices of a query are right, where [`GUESS`] allows it.
    pub query: f64,
    /// Probability that a right query is found correct.
    pub accepts_right: f64,
    /// Probability that a wrong query is found correct.
    pub accepts_wrong: f64,
    /// Most queries of a rollout.
    pub queries: usize,
}

impl Default for Noise {
    fn default() -> Self {
        Self { query: 1.0 / 20.0, accepts_right: 0.75, accepts_wrong: 0.6, queries: 3 }
    }
}

impl Noise {
    /// No noise: the right query, found correct.
    pub fn none() -> Self {
        Self { query: 1.0, accepts_right: 1.0, accepts_wrong: 0.0, queries: 3 }
    }

    fn disturbed(&self, query: &Query, draws: &mut Draws) -> Query {
        let guess: f64 = choices::ways(query).iter().map(|&wrong| (wrong as f64 + 1.0).ln()).sum();
        let exponent = if guess > 0.0 { (-self.query.ln() / guess).min(GUESS) } else { 0.0 };
        choices::decided(query, &mut |wrong| {
            let right = (wrong as f64 + 1.0).powf(-exponent);
            (!draws.chance(right)).then(|| draws.below(wrong))
        })
    }
}

impl MiniSpider {
    /// The rollout that `seed` draws for training task number `index`.
    pub fn demonstration(&self, index: u64, noise: &Noise, seed: SeedTree) -> Demonstration {
        let (task, right) = self.training(index);
        let mut draws = Draws::new(seed.child("noise"));
        let mut turns = Vec::new();
        for number in 0..noise.queries.max(1) {
            let drawn = noise.disturbed(&right, &mut draws);
            let query = drawn.to_string();
            turns.push(if number == 0 { Turn::Write { query } } else { Turn::Rewrite { query } });
            let accepts = if drawn == right { noise.accepts_right } else { noise.accepts_wrong };
            let correct = draws.chance(accepts);
            turns.push(Turn::Check { correct });
            if correct {
                break;
            }
        }
        Demonstration { task, turns }
    }
}
