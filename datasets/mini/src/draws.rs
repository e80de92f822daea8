//! A sequence of random draws below one node of the seed tree.
//!
//! Uses only [`SeedTree::uniform`], so that no update of a random number library can change a
//! task.

use leyden_core::SeedTree;

pub(crate) struct Draws {
    node: SeedTree,
    next: u64,
}

impl Draws {
    pub fn new(node: SeedTree) -> Self {
        Self { node, next: 0 }
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.next += 1;
        self.node.index(self.next).uniform()
    }

    /// Uniform in 0..n; `n` must be positive.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Uniform in low..=high.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.uniform() * (high - low + 1) as f64) as i64
    }

    /// One of `choices`, which must not be empty.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Whether an event of probability `p` happens.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Shuffles `items` (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }

    /// Draws an index with probabilities proportional to `shares`.
    pub fn weighted(&mut self, shares: &[f64]) -> usize {
        let mut rest = self.uniform() * shares.iter().sum::<f64>();
        for (i, share) in shares.iter().enumerate() {
            rest -= share;
            if rest < 0.0 {
                return i;
            }
        }
        shares.len() - 1
    }
}
