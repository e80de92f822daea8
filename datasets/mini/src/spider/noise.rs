//! Demonstrations in which each choice is correct with a given probability.
//!
//! A base model for reinforcement learning has to know the language of queries, how to copy names
//! and values, and the agent's protocol, but not which query answers which question; the rewards
//! train that. Its demonstrations are queries with correct names and values in which each choice
//! (see `choices`: aggregate, comparison, direction, limit, which of two columns orders, join,
//! negation, connective, group) is correct with a given probability, and otherwise a random wrong
//! alternative.
//!
//! A choice among `k` alternatives is correct with probability `k^-e`; `e` is such that all choices
//! of a query are correct about one time in twenty, whatever their number, but at most [`GUESS`].
//! With `e` = 1 a choice would be a pure guess, and with more the base model would learn to avoid
//! the correct alternative; therefore queries with few choices are correct more often. The verdicts
//! on a query are little better than chance, and with the rewritten queries about one rollout in
//! ten ends with the correct result.

use leyden_core::{SeedTree, Task};

use super::query::Query;
use super::{MiniSpider, choices};
use crate::draws::Draws;

/// One turn of the agent's roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The first query.
    Write { query: String },
    /// The verdict on the previous query.
    Check { correct: bool },
    /// Another query.
    Rewrite { query: String },
}

/// A demonstrated rollout: a query, then alternating verdicts and rewritten queries. It ends with
/// the verdict "correct" or at the agent's limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration {
    pub task: Task,
    pub turns: Vec<Turn>,
}

impl Demonstration {
    /// The final query of the rollout.
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

/// Error rates of demonstrations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Probability that all choices of a query are correct, as far as [`GUESS`] permits.
    pub query: f64,
    /// Probability that a correct query is judged correct.
    pub accepts_right: f64,
    /// Probability that a wrong query is judged correct.
    pub accepts_wrong: f64,
    /// Maximum number of queries in a rollout.
    pub queries: usize,
}

impl Default for Noise {
    fn default() -> Self {
        Self { query: 1.0 / 20.0, accepts_right: 0.75, accepts_wrong: 0.6, queries: 3 }
    }
}

impl Noise {
    /// No noise: the correct query, judged correct.
    pub fn none() -> Self {
        Self { query: 1.0, accepts_right: 1.0, accepts_wrong: 0.0, queries: 3 }
    }

    fn disturbed(&self, query: &Query, draws: &mut Draws) -> Query {
        let guess: f64 =
            choices::alternatives(query).iter().map(|&wrong| (wrong as f64 + 1.0).ln()).sum();
        let exponent = if guess > 0.0 { (-self.query.ln() / guess).min(GUESS) } else { 0.0 };
        choices::decided(query, &mut |wrong| {
            let right = (wrong as f64 + 1.0).powf(-exponent);
            (!draws.chance(right)).then(|| draws.below(wrong))
        })
    }
}

impl MiniSpider {
    /// Draws a rollout for training task number `index`.
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
